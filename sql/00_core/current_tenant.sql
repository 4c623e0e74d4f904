create function core.current_tenant() returns text
language sql stable parallel safe
return nullif(current_setting('pulse.tenant_id', true), '');

comment on function core.current_tenant() is
  'Return the tenant of the transaction, null if unset. Views of schema api show no row without it.';
