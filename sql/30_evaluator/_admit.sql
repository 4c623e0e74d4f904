-- Called where alerts open, in every transaction that opens some; it holds the shards of their devices. Two passes at once
-- each count without the other's openings, so a tenant may exceed its limits by what the passes in hand open.
create function evaluator._admit(p_openings jsonb) returns jsonb
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_minute constant timestamptz := date_trunc('minute', core.now());
  v_admitted jsonb;
  v_withheld jsonb;
  v_refusal record;
begin
  with opening as materialized (
    select o.opening, o.position, o.opening ->> 'tenant_id' as tenant_id, o.opening ->> 'device_id' as device_id,
      o.opening ->> 'closed_at' is null as stays
    from jsonb_array_elements(p_openings) with ordinality as o (opening, position)
  ), tenant as materialized (
    select t.tenant_id, most.alerts_open, most.transitions, (
        select count(*)
        from (
          select from public.alerts a
          where a.tenant_id = t.tenant_id and a.status <> 'closed'
          limit most.alerts_open
        ) a
      ) as open, (
        select coalesce(2 * sum(c.openings), 0)
        from evaluator.opening_counts c
        where c.tenant_id = t.tenant_id and c.minute = v_minute
      ) as used
    from (select distinct o.tenant_id from opening o where o.tenant_id <> 'system') t
    cross join lateral (
      select core._limit_of(t.tenant_id, 'alerts_open') as alerts_open,
        core._limit_of(t.tenant_id, 'transitions_per_minute') as transitions
    ) most
  ), placed as materialized (
    select o.*, t.used, t.transitions,
      coalesce(o.stays and t.open + count(*) filter (where o.stays) over earlier > t.alerts_open, false) as is_full
    from opening o
    left join tenant t using (tenant_id)
    window earlier as (partition by o.tenant_id order by o.position)
  ), judged as materialized (
    select p.*, case
        when p.is_full then 'alerts_open'
        -- An alert that opens also closes, so it takes two.
        when p.used + 2 * count(*) filter (where not p.is_full) over earlier > p.transitions then 'transitions_per_minute'
      end as above
    from placed p
    window earlier as (partition by p.tenant_id order by p.position)
  ), counted as (
    insert into evaluator.opening_counts as c (tenant_id, shard, minute, openings)
    select j.tenant_id, core.shard_of(j.tenant_id, j.device_id) as shard, v_minute, count(*)
    from judged j
    where j.above is null and j.device_id is not null
    group by j.tenant_id, shard
    order by j.tenant_id, shard
    on conflict (tenant_id, shard) do update
    set minute = excluded.minute,
      openings = excluded.openings + case when c.minute = excluded.minute then c.openings else 0 end
  )
  select jsonb_agg(j.opening order by j.position) filter (where j.above is null),
    jsonb_agg(j.opening || jsonb_build_object('above', j.above) order by j.position) filter (where j.above is not null)
  into v_admitted, v_withheld
  from judged j;
  if v_withheld is null then
    return p_openings;
  end if;
  -- A breach whose alert is withheld is pending again: it opens with a later reading, or in a minute without one.
  update public.rule_state s
  set firing = false, due_at = core.now() + interval '1 minute'
  from jsonb_to_recordset(v_withheld) as w (tenant_id text, rule_id bigint, device_id text, closed_at timestamptz)
  where w.closed_at is null and s.tenant_id = w.tenant_id and s.rule_id = w.rule_id and s.device_id = w.device_id;
  for v_refusal in
    select w.tenant_id, w.above, coalesce(min(core.shard_of(w.tenant_id, w.device_id)), -1::smallint) as shard, count(*) as number
    from jsonb_to_recordset(v_withheld) as w (tenant_id text, device_id text, above text)
    group by w.tenant_id, w.above
    order by w.tenant_id, w.above
  loop
    perform ops._refuse(v_refusal.tenant_id, v_refusal.above, core._limit_of(v_refusal.tenant_id, v_refusal.above),
      v_refusal.shard, v_refusal.number);
  end loop;
  return coalesce(v_admitted, '[]');
end
$$;

comment on function evaluator._admit(jsonb) is
  'Return the openings that the limits alerts_open and transitions_per_minute of their tenants allow. The others are '
  'counted and audited; those whose condition still holds are tried again within a minute.';
