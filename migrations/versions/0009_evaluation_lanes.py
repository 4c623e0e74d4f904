"""Claims of the evaluator, the dispatcher and the escalation by tenant, and flapping alerts.

As 0009_evaluation_lanes.sql defines them. A revision changes state only; behavior belongs to sql/.
"""

from pathlib import Path

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

_DOWNGRADE = """
-- An older revision knows no flapping: the event becomes an update, which its message explains.
alter table public.alert_events
  drop constraint alert_events_changes_check,
  drop constraint alert_events_kind_check,
  drop column changes;
update public.alert_events set kind = 'updated' where kind = 'flapping';
alter table public.alert_events add constraint alert_events_kind_check
  check (kind in ('opened', 'acknowledged', 'silenced', 'escalated', 'updated', 'closed'));
comment on column public.alert_events.kind is 'opened, acknowledged, silenced, escalated, updated or closed.';

drop index ops.escalations_tenant_id_due_at_idx;
drop index public.alert_events_tenant_id_pending_idx;

drop index public.rule_state_tenant_id_shard_due_at_idx;
drop index public.rule_state_due_at_idx;
create index rule_state_shard_due_at_idx on public.rule_state (shard, due_at) where due_at is not null;

drop index evaluator.inbox_arrival_idx;
alter table evaluator.inbox
  drop constraint inbox_pkey,
  add constraint inbox_pkey primary key (shard, arrival);

create table evaluator.shards (
  shard smallint not null,
  constraint shards_pkey primary key (shard),
  constraint shards_shard_check check (shard between 0 and 15)
);
comment on table evaluator.shards is
  'One row a shard; its row lock is the right to evaluate that shard''s readings, so order holds for each device.';
comment on column evaluator.shards.shard is 'Number of the shard.';
insert into evaluator.shards (shard) select generate_series(0, 15);
drop table evaluator.lanes;
"""


def upgrade() -> None:
    """Run the file through the driver, which takes several statements and leaves `:name` and `%` alone."""
    statements = Path(__file__).with_suffix(".sql").read_text(encoding="utf-8")
    op.get_bind().connection.cursor().execute(statements)


def downgrade() -> None:
    """Undo upgrade()."""
    op.get_bind().connection.cursor().execute(_DOWNGRADE)
