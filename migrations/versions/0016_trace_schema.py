"""Schema trace for the spans of a trace, and plainer comments on schemas, tables and columns.

As 0016_trace_schema.sql defines them; 0016_trace_schema_down.sql restores the earlier comments. A revision changes
state only; behavior belongs to sql/.
"""

from pathlib import Path

from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

_HERE = Path(__file__)


def upgrade() -> None:
    """Run the file through the driver, which takes several statements and leaves `:name` and `%` alone."""
    _run(_HERE.with_suffix(".sql"))


def downgrade() -> None:
    """Drop the schema and restore the comments."""
    _run(_HERE.with_name(f"{_HERE.stem}_down.sql"))


def _run(file: Path) -> None:
    op.get_bind().connection.cursor().execute(file.read_text(encoding="utf-8"))
