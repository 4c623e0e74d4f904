create function core.current_actor_name() returns text
language sql stable parallel safe
return nullif(current_setting('pulse.actor_name', true), '');

comment on function core.current_actor_name() is 'Name of who acts in the transaction.';
