create function core.current_reason() returns text
language sql stable parallel safe
return nullif(current_setting('pulse.reason', true), '');

comment on function core.current_reason() is 'Return the reason for the transaction''s changes, null if unset.';
