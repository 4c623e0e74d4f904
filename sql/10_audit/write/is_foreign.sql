-- In PL/pgSQL, so that a trigger's condition does not inline it for each statement that writes audit rows.
create function audit.is_foreign(p_source_service text, p_category text, p_action text) returns boolean
language plpgsql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
begin
  return p_source_service is distinct from 'ui_iot'
    or p_category in ('alert', 'config', 'delivery', 'system')
    or p_category = 'audit' and p_action not in ('gap', 'quarantined', 'read');
end
$$;

comment on function audit.is_foreign(text, text, text) is
  'Return whether the HTTP API may not write an event by itself: an event of another service, or of a kind that only '
  'functions write.';
