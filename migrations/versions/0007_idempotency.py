"""Answers to requests with an Idempotency-Key.

The statements are in 0007_idempotency.sql. A revision changes state only; behaviour belongs to sql/.
"""

from pathlib import Path

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

DOWNGRADE = """
drop table ingest.idempotency_keys;
"""


def upgrade() -> None:
    """Runs the file through the driver, which takes several statements and leaves `:name` and `%` alone."""
    statements = Path(__file__).with_suffix(".sql").read_text(encoding="utf-8")
    op.get_bind().connection.cursor().execute(statements)


def downgrade() -> None:
    """Drops what upgrade() made."""
    op.get_bind().connection.cursor().execute(DOWNGRADE)
