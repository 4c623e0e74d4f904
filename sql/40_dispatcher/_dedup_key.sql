-- An incident is closed under the key that opened it, even if another release runs by then.
create function dispatcher._dedup_key(p_alert public.alerts, p_installation public.installation) returns text
language sql
immutable
return concat_ws('/',
  'pulse',
  case when p_alert.recorded_at >= p_installation.created_at then p_installation.installation_id end,
  p_alert.tenant_id,
  p_alert.alert_id);

comment on function dispatcher._dedup_key(public.alerts, public.installation) is
  'Return the key of an alert''s incident at its receivers, unique over installations. Alerts that are older than the '
  'installation''s id have a key without it.';
