"""The sealed audit trail: blocks and their tree, checkpoints, legal holds, tombstones, tracked tables, findings.

As 0002_audit_seal.sql tells it. A revision changes state only; behaviour belongs to sql/.
"""

from pathlib import Path

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

DOWNGRADE = """
drop table
  audit.blocks, audit.tree_nodes, audit.checkpoints, audit.sealer, audit.signing_keys,
  audit.tombstones, audit.holds, audit.retention, audit.tracked_tables, audit.attack_findings,
  audit.attack_detector;
drop index
  public.audit_log_xid_idx, public.audit_log_auth_failure_recorded_at_idx, public.audit_log_auth_failure_address_idx,
  public.audit_log_auth_account_idx, public.audit_log_user_idx;
alter table public.audit_log drop column xid;
alter table public.notification_channels drop column shown_url;
alter table public.audit_log drop constraint audit_log_timestamp_check;
alter table public.audit_log drop constraint audit_log_recorded_at_check;
alter table public.audit_log drop constraint audit_log_duration_ms_check;
"""


def upgrade() -> None:
    """Runs the file through the driver, which takes several statements and leaves `:name` and `%` alone."""
    statements = Path(__file__).with_suffix(".sql").read_text(encoding="utf-8")
    op.get_bind().connection.cursor().execute(statements)


def downgrade() -> None:
    """Drops what upgrade() made."""
    op.get_bind().connection.cursor().execute(DOWNGRADE)
