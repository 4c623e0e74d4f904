create function core.current_actor_type() returns text
language sql stable parallel safe
return nullif(current_setting('pulse.actor_type', true), '');

comment on function core.current_actor_type() is
  'Return the kind of the transaction''s actor: user, device, service or anonymous; null if unset.';
