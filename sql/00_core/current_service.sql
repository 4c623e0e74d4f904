create function core.current_service() returns text
language sql stable parallel safe
return nullif(current_setting('pulse.service', true), '');

comment on function core.current_service() is 'Return the service that runs the transaction, null if unset.';
