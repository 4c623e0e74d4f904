"""Attempts in a row that hung, and fingerprints of addresses instead of their paths.

As 0011_delivery_fairness.sql defines them. A revision changes state only; behavior belongs to sql/.
"""

from pathlib import Path

from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Run the file through the driver, which takes several statements and leaves `:name` and `%` alone."""
    statements = Path(__file__).with_suffix(".sql").read_text(encoding="utf-8")
    op.get_bind().connection.cursor().execute(statements)


def downgrade() -> None:
    """Drop what upgrade() made. The later column is made anew as well, so that the columns keep their order."""
    op.get_bind().connection.cursor().execute(
        """
        alter table delivery.lanes drop column hangs;
        alter table public.installation drop column fingerprint_key;
        alter table public.notification_channels drop column shown_url;
        alter table public.notification_channels rename column disabled_reason to former_disabled_reason;
        alter table public.notification_channels add column shown_url text generated always as (
          case
            when kind = 'webhook' then
              substring(config ->> 'url' from '^(https?://[^/?#@[:space:]]+(?:/[^?#]*)?)(?:[?#].*)?$')
              || case when config ->> 'url' ~ '[?#]' then '?…' else '' end
            else substring(config ->> 'url' from '^(https?://[^/?#@[:space:]]+)(?:[/?#].*)?$') || '/…'
          end
        ) stored;
        alter table public.notification_channels add column disabled_reason text;
        update public.notification_channels set disabled_reason = former_disabled_reason
        where former_disabled_reason is not null;
        alter table public.notification_channels drop column former_disabled_reason;
        comment on column public.notification_channels.shown_url is
          'What of the address may be shown: without its secret part; null when there is none or it is no plain '
          'address.';
        comment on column public.notification_channels.disabled_reason is
          'Why Pulse disabled the channel; null when a person did, or when it is enabled.';
        comment on column public.notification_channels.config is
          'Address and secret of the channel; only delivery.claim reads it.';
        """
    )
