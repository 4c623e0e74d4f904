create function audit._require_actor(p_table regclass) returns void
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  if core.current_actor_id() is null then
    raise exception using
      errcode = 'PU403',
      message = format(
        'a change of %s needs an actor, because it is audited: begin; select audit.act(''psql:alice'', ''why''); …; commit;',
        p_table);
  end if;
end
$$;

comment on function audit._require_actor(regclass) is 'Raise PU403 if the transaction has no actor.';
