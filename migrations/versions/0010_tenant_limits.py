"""Limits of tenants, what counts against them, and the refusals they cause.

As 0010_tenant_limits.sql defines them. A revision changes state only; behavior belongs to sql/.
"""

from pathlib import Path

from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

_UNDO = """
delete from audit.tracked_tables where table_name = 'public.tenant_limits';
drop table evaluator.opening_counts;
drop table ops.limit_refusals;
drop table ingest.series_counts;
drop table public.tenant_usage;
drop table public.tenant_limits;
"""


def upgrade() -> None:
    """Run the file through the driver, which takes several statements and leaves `:name` and `%` alone."""
    statements = Path(__file__).with_suffix(".sql").read_text(encoding="utf-8")
    op.get_bind().connection.cursor().execute(statements)


def downgrade() -> None:
    """Drop what upgrade() made."""
    op.get_bind().connection.cursor().execute(_UNDO)
