"""The tables of Pulse, as 0001_foundation.sql tells them.

A revision changes state only: tables, constraints, indexes, rows. Functions, views, triggers, policies and grants
belong to sql/.
"""

from pathlib import Path

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

# Without cascade: whatever somebody else put into these schemas stops the downgrade instead of vanishing with it.
DOWNGRADE = """
drop table
  public.tenants, public.devices, public.telemetry, public.device_state,
  public.escalation_policies, public.escalation_steps,
  public.alert_rules, public.rule_state, public.alerts, public.alert_events,
  public.notification_channels, public.notification_routes, public.notification_jobs,
  public.delivery_attempts, public.suppressions,
  public.audit_log, public.service_health, public.service_metrics,
  evaluator.inbox, evaluator.shards, delivery.lanes, ops.escalations;
drop sequence public.telemetry_reading_id_seq;
drop schema core, audit, ingest, evaluator, dispatcher, delivery, ops, metrics, api;
"""


def upgrade() -> None:
    """Runs the file through the driver, which takes several statements and leaves `:name` and `%` alone."""
    statements = Path(__file__).with_suffix(".sql").read_text(encoding="utf-8")
    op.get_bind().connection.cursor().execute(statements)


def downgrade() -> None:
    """Drops every table and schema that upgrade() made."""
    op.get_bind().connection.cursor().execute(DOWNGRADE)
