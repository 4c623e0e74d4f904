"""Rows that gate work instead of advisory locks.

As 0012_work_locks.sql defines them. A revision changes state only; behavior belongs to sql/.
"""

from pathlib import Path

from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Run the file through the driver, which takes several statements and leaves `:name` and `%` alone."""
    statements = Path(__file__).with_suffix(".sql").read_text(encoding="utf-8")
    op.get_bind().connection.cursor().execute(statements)


def downgrade() -> None:
    """Drop what upgrade() made."""
    op.get_bind().connection.cursor().execute("drop table ops.work_locks")
