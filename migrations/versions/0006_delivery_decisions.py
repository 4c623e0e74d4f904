"""State of paused channels, reasons of dead notifications, lasting silences and the installation's id.

0006_delivery_decisions.sql explains each column. A revision changes state only; behavior belongs to sql/.
"""

from pathlib import Path

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

# Rows that the older checks do not know are mapped to the nearest outcome and reason that they do.
DOWNGRADE = """
update public.suppressions set reason = 'no_route'
where reason in ('route_disabled', 'other_rule', 'other_tag', 'below_severity');
update public.suppressions set reason = 'not_notified'
where reason in ('other_step', 'alert_acknowledged', 'alert_closed', 'not_announced');
alter table public.suppressions drop constraint suppressions_reason_check;
alter table public.suppressions add constraint suppressions_reason_check
  check (reason in ('no_route', 'silenced', 'channel_disabled', 'channel_deleted', 'not_notified'));
alter table public.suppressions drop column route_id;
comment on column public.suppressions.reason is
  'no_route, silenced, channel_disabled, channel_deleted, or not_notified: the channel never heard of the opening.';

drop index public.delivery_attempts_channel_id_idx;
update public.delivery_attempts set outcome = 'retry' where outcome = 'limited';
update public.delivery_attempts set outcome = 'refused' where outcome = 'gone';
alter table public.delivery_attempts drop constraint delivery_attempts_outcome_check;
alter table public.delivery_attempts add constraint delivery_attempts_outcome_check
  check (outcome in ('delivered', 'retry', 'refused', 'unknown'));
comment on column public.delivery_attempts.outcome is
  'delivered, retry, refused, or unknown: the lease ran out and nobody knows whether the request was sent.';

alter table public.notification_jobs
  drop constraint notification_jobs_dead_reason_check,
  drop column dead_reason, drop column redriven_at, drop column leased_at, drop column route_id;
alter table public.notification_channels drop column disabled_reason;
alter table delivery.lanes
  drop column lifted_at, drop column deliveries, drop column limits, drop column reason, drop column paused_at;
comment on table delivery.lanes is
  'Channels that asked for a pause (Retry-After); nothing is sent to them before paused_until.';
alter table public.alert_events drop column policy_id;
alter table ops.escalations drop column delayed_by;
drop table evaluator.silences;
drop table public.installation;
"""


def upgrade() -> None:
    """Run the file through the driver, which takes several statements and leaves `:name` and `%` alone."""
    statements = Path(__file__).with_suffix(".sql").read_text(encoding="utf-8")
    op.get_bind().connection.cursor().execute(statements)


def downgrade() -> None:
    """Drop everything that upgrade() made."""
    op.get_bind().connection.cursor().execute(DOWNGRADE)
