create function core.current_actor_id() returns text
language sql stable parallel safe
return nullif(current_setting('pulse.actor_id', true), '');

comment on function core.current_actor_id() is 'Who acts in the transaction.';
