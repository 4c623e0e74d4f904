"""Evaluation time, several values at one instant, and names that alerts keep.

0005_evaluation_time.sql describes each column. A revision changes state only; behavior belongs to sql/.
"""

from pathlib import Path

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

DOWNGRADE = """
alter table public.devices drop column first_reading_id;
alter table public.alert_rules drop column disabled_reason;

-- The older revision has no such events, and its constraints refuse them.
delete from public.delivery_attempts d
using public.notification_jobs j
where j.tenant_id = d.tenant_id and j.job_id = d.job_id and j.kind = 'updated';
delete from public.notification_jobs where kind = 'updated';
delete from public.suppressions s
using public.alert_events e
where e.tenant_id = s.tenant_id and e.event_id = s.event_id and e.kind = 'updated';
delete from public.alert_events where kind = 'updated';
alter table public.alert_events drop constraint alert_events_kind_check;
alter table public.alert_events add constraint alert_events_kind_check
  check (kind in ('opened', 'acknowledged', 'silenced', 'escalated', 'closed'));
alter table public.notification_jobs drop constraint notification_jobs_kind_check;
alter table public.notification_jobs add constraint notification_jobs_kind_check
  check (kind in ('opened', 'acknowledged', 'escalated', 'closed'));
alter table public.alert_events drop column message;
comment on column public.alert_events.kind is 'opened, acknowledged, silenced, escalated or closed.';

drop index public.alerts_tenant_id_fingerprint_closed_at_idx;
alter table public.alerts drop constraint alerts_closed_at_order_check;
alter table public.alerts drop column device_name;
comment on column public.alerts.rule_name is 'The rule''s name when it opened.';
comment on column public.alerts.severity is 'The rule''s severity when it opened.';
comment on column public.alerts.opened_at is 'When it opened, in the device''s time.';

alter table evaluator.inbox drop constraint inbox_pkey;
alter table evaluator.inbox add constraint inbox_pkey primary key (shard, reading_id);
alter table evaluator.inbox drop column newest_before;
alter table evaluator.inbox drop column arrival;
drop sequence evaluator.inbox_arrival_seq;
comment on column evaluator.inbox.reading_id is 'Order of arrival.';

alter table public.device_state drop column newest_before;
comment on table public.device_state is 'The newest reading of each device and metric.';
alter table public.telemetry drop column overwrites;
comment on column public.telemetry.received_at is 'When the row was written, by the database''s clock.';
comment on column public.rule_state.since is 'Timestamp of the first reading of the unbroken breach.';
comment on column public.rule_state.last_timestamp is
  'Timestamp of the newest reading evaluated; older ones never rewind the state.';
comment on column public.rule_state.due_at is 'When a pending breach opens though no further reading comes.';
"""


def upgrade() -> None:
    """Run the file through the driver, which accepts several statements and leaves `:name` and `%` alone."""
    statements = Path(__file__).with_suffix(".sql").read_text(encoding="utf-8")
    op.get_bind().connection.cursor().execute(statements)


def downgrade() -> None:
    """Undo upgrade()."""
    op.get_bind().connection.cursor().execute(DOWNGRADE)
