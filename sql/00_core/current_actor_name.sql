create function core.current_actor_name() returns text
language sql stable parallel safe
return nullif(current_setting('pulse.actor_name', true), '');

comment on function core.current_actor_name() is 'Return the name of the transaction''s actor, null if unset.';
