create function ops._set_steps(p_tenant_id text, p_policy_id bigint, p_steps jsonb) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  if exists (
    select
    from (
      select (s.step ->> 'after_minutes')::double precision - lag((s.step ->> 'after_minutes')::double precision)
        over (order by s.number)
      from jsonb_array_elements(p_steps) with ordinality as s (step, number)
    ) as g (gap)
    where g.gap < 0
  ) then
    raise exception using errcode = 'PU422', message = 'after_minutes must not decrease from one step to the next';
  end if;
  -- Unchanged steps are not written, because each change is an audit event.
  delete from public.escalation_steps s
  where s.tenant_id = p_tenant_id and s.policy_id = p_policy_id and s.step_number > jsonb_array_length(p_steps);
  insert into public.escalation_steps as old (tenant_id, policy_id, step_number, after_minutes, channel_id)
  select p_tenant_id, p_policy_id, s.number, (s.step ->> 'after_minutes')::double precision, (s.step ->> 'channel_id')::bigint
  from jsonb_array_elements(p_steps) with ordinality as s (step, number)
  on conflict (tenant_id, policy_id, step_number) do update
  set after_minutes = excluded.after_minutes, channel_id = excluded.channel_id
  where (old.after_minutes, old.channel_id) is distinct from (excluded.after_minutes, excluded.channel_id);
end
$$;

comment on function ops._set_steps(text, bigint, jsonb) is
  'Replace a policy''s steps by [{after_minutes, channel_id}], numbered in this order. Raises PU422 if a time is less '
  'than the one before.';
