"""${message}

A revision changes state only: tables, constraints, indexes, rows. Functions, views, triggers, policies and grants
belong to sql/. The previous release must still run on it, and downgrade() must undo exactly what upgrade() did.
"""

from alembic import op

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
branch_labels = None
depends_on = None

UPGRADE = """
"""

DOWNGRADE = """
"""


def upgrade() -> None:
    """Run the statements through the driver, because op.execute replaces `:name`."""
    op.get_bind().connection.cursor().execute(UPGRADE)


def downgrade() -> None:
    """Undo exactly what upgrade() did."""
    op.get_bind().connection.cursor().execute(DOWNGRADE)
