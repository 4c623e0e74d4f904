-- What delivery must remember to notice a receiver that hangs, and what of a channel's address may be shown.

alter table delivery.lanes add column hangs integer not null default 0;
comment on column delivery.lanes.hangs is 'Attempts in a row that ran into their deadline; from the third on each pauses the channel.';

-- The path of an address is a secret: whoever knows a webhook of Slack, Discord or Zapier can post to it. People tell two
-- addresses apart by a fingerprint. Its key keeps a reader from guessing a short path.
alter table public.installation
  add column fingerprint_key bytea not null default (uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()));
comment on column public.installation.fingerprint_key is 'Random key of the fingerprints that are shown instead of the paths of addresses.';

alter table public.notification_channels alter column shown_url drop expression;
update public.notification_channels c
set shown_url = substring(c.config ->> 'url' from '^(https?://[^/?#@[:space:]]+)(?:[/?#].*)?$') || '/… ('
  || left(encode(sha256(i.fingerprint_key || convert_to(c.config ->> 'url', 'UTF8')), 'hex'), 8) || ')'
from public.installation i;
comment on column public.notification_channels.shown_url is
  'What of the address may be shown: scheme, host and a fingerprint; null when there is none or it is no plain address.';
comment on column public.notification_channels.config is
  'Address and secret of the channel, each member sealed for the delivery worker or, without its key, plain; only delivery.claim and delivery.read_channel_secrets read it.';
