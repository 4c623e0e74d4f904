"""API keys of machines, and the list of revoked user tokens.

As 0013_keys_and_revocations.sql defines them. A revision changes state only; behavior belongs to sql/.
"""

from pathlib import Path

from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Run the file through the driver, which takes several statements and leaves `:name` and `%` alone."""
    statements = Path(__file__).with_suffix(".sql").read_text(encoding="utf-8")
    op.get_bind().connection.cursor().execute(statements)


def downgrade() -> None:
    """Drop what upgrade() made."""
    op.get_bind().connection.cursor().execute(
        "drop table public.revocations, ingest.api_key_uses, public.api_keys;"
        " delete from audit.tracked_tables where table_name in ('public.api_keys', 'public.revocations')"
    )
