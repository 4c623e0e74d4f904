"""What traces and metrics need of the tables.

As 0003_observability.sql tells it. A revision changes state only; behaviour belongs to sql/.
"""

from pathlib import Path

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

DOWNGRADE = """
do $$
declare
  v_partition regclass;
begin
  for v_partition in
    select inhrelid::regclass
    from pg_inherits
    where inhparent in ('public.telemetry'::regclass, 'public.audit_log'::regclass)
  loop
    execute format('alter table %s alter column trace_id reset (n_distinct)', v_partition);
  end loop;
end
$$;
alter table public.alert_events drop column reading_received_at;
alter table public.alert_events drop column decided_at;
"""


def upgrade() -> None:
    """Runs the file through the driver, which takes several statements and leaves `:name` and `%` alone."""
    statements = Path(__file__).with_suffix(".sql").read_text(encoding="utf-8")
    op.get_bind().connection.cursor().execute(statements)


def downgrade() -> None:
    """Drops what upgrade() made."""
    op.get_bind().connection.cursor().execute(DOWNGRADE)
