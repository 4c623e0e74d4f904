create function core.current_tenant() returns text
language sql stable parallel safe
return nullif(current_setting('pulse.tenant_id', true), '');

comment on function core.current_tenant() is 'Tenant the transaction acts for, null when unset: then no row is shown.';
