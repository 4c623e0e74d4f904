create function core.current_service() returns text
language sql stable parallel safe
return nullif(current_setting('pulse.service', true), '');

comment on function core.current_service() is 'Service that runs the transaction.';
