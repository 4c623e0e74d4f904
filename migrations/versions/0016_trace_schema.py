"""Schema trace, for the views and functions that tell one trace from the rows of all tables.

As 0016_trace_schema.sql defines it. A revision changes state only; behavior belongs to sql/.
"""

from pathlib import Path

from alembic import op

revision = "0016"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Run the file through the driver, which takes several statements and leaves `:name` and `%` alone."""
    statements = Path(__file__).with_suffix(".sql").read_text(encoding="utf-8")
    op.get_bind().connection.cursor().execute(statements)


def downgrade() -> None:
    """Drop what upgrade() made."""
    op.get_bind().connection.cursor().execute("drop schema trace")
