create function core.current_reason() returns text
language sql stable parallel safe
return nullif(current_setting('pulse.reason', true), '');

comment on function core.current_reason() is 'Why the transaction changes something.';
