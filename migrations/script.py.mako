"""${message}

A revision changes state only: tables, constraints, indexes, rows. Functions, views, triggers, policies and grants
belong to sql/. It must leave the previous release able to run, and downgrade() must undo exactly what upgrade() did.
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
    """Runs the statements as they stand: through the driver, because op.execute trips over `:name`."""
    op.get_bind().connection.cursor().execute(UPGRADE)


def downgrade() -> None:
    """Undoes exactly what upgrade() did."""
    op.get_bind().connection.cursor().execute(DOWNGRADE)
