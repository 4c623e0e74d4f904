"""A mark that the sealed log was begun, and a verification of the SQL layer.

As 0014_sealer_memory.sql defines them. A revision changes state only; behavior belongs to sql/.
"""

from pathlib import Path

from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

_DOWN = """
delete from audit.verifications where scope = 'layer';
alter table audit.verifications drop constraint verifications_scope_check;
alter table audit.verifications add constraint verifications_scope_check check (scope in ('day', 'all'));
comment on table audit.verifications is 'What the ops worker found when it last verified the sealed log by itself.';
comment on column audit.verifications.scope is 'day: rows sealed within the last day; all: every row.';
comment on column audit.verifications.row_count is 'Rows hashed anew.';
comment on column audit.verifications.fault_count is 'Faults found; 0: everything is as it was sealed.';
alter table public.installation drop column log_begun_at;
"""


def upgrade() -> None:
    """Run the file through the driver, which takes several statements and leaves `:name` and `%` alone."""
    statements = Path(__file__).with_suffix(".sql").read_text(encoding="utf-8")
    op.get_bind().connection.cursor().execute(statements)


def downgrade() -> None:
    """Drop what upgrade() made."""
    op.get_bind().connection.cursor().execute(_DOWN)
