"""Weights of tenants in evaluation, the type of an alert's transition, and an index less on the inbox.

As 0015_evaluation_weights.sql defines them. A revision changes state only; behavior belongs to sql/.
"""

from pathlib import Path

from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

_DOWN = """
drop type evaluator.transition;
create index inbox_arrival_idx on evaluator.inbox (arrival);
delete from public.tenant_limits where limit_name = 'evaluation_weight';
alter table public.tenant_limits
  drop constraint tenant_limits_limit_name_check,
  add constraint tenant_limits_limit_name_check check (
    limit_name in ('rules', 'devices', 'series', 'channels', 'alerts_open', 'transitions_per_minute')
  ),
  drop constraint tenant_limits_value_check,
  add constraint tenant_limits_value_check check (value between 0 and 1000000000000);
"""


def upgrade() -> None:
    """Run the file through the driver, which takes several statements and leaves `:name` and `%` alone."""
    statements = Path(__file__).with_suffix(".sql").read_text(encoding="utf-8")
    op.get_bind().connection.cursor().execute(statements)


def downgrade() -> None:
    """Drop what upgrade() made."""
    op.get_bind().connection.cursor().execute(_DOWN)
