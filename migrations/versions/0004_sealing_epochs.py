"""Epochs of the sealed audit trail: servers, entries of the log, results of verification.

As 0004_sealing_epochs.sql tells it. A revision changes state only; behaviour belongs to sql/.
"""

from pathlib import Path

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

DOWNGRADE = """
do $$
begin
  if exists (select from audit.blocks where entry is not null) or exists (select from audit.epochs where epoch > 0) then
    raise exception 'the audit trail was moved to another server, or has entries about its keys: an older revision can '
      'neither seal nor verify it';
  end if;
end
$$;
alter table public.audit_log alter column xid set default pg_current_xact_id();
drop table audit.epochs, audit.verifications;
drop index audit.blocks_entry_idx, audit.blocks_first_position_key;
alter table audit.blocks drop constraint blocks_row_count_check;
alter table audit.blocks drop column entry;
alter table audit.blocks add constraint blocks_row_count_check check (row_count > 0);
alter table audit.blocks add constraint blocks_first_position_key unique (first_position);
comment on column public.audit_log.xid is
  'Transaction that wrote the row; with the snapshots of audit.blocks it tells the row''s block.';
"""


def upgrade() -> None:
    """Runs the file through the driver, which takes several statements and leaves `:name` and `%` alone."""
    statements = Path(__file__).with_suffix(".sql").read_text(encoding="utf-8")
    op.get_bind().connection.cursor().execute(statements)


def downgrade() -> None:
    """Drops what upgrade() made."""
    op.get_bind().connection.cursor().execute(DOWNGRADE)
