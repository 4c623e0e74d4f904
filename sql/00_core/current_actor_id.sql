create function core.current_actor_id() returns text
language sql stable parallel safe
return nullif(current_setting('pulse.actor_id', true), '');

comment on function core.current_actor_id() is 'Return the id of the transaction''s actor, null if unset.';
