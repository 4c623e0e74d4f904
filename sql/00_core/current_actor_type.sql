create function core.current_actor_type() returns text
language sql stable parallel safe
return nullif(current_setting('pulse.actor_type', true), '');

comment on function core.current_actor_type() is 'Kind of actor of the transaction: user, device, service or anonymous.';
