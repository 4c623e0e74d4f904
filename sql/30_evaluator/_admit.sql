-- Every transaction that opens alerts calls this; it holds the lanes of their devices. Two passes at once each count without
-- the other's openings, so a tenant may exceed its limits by the openings of the passes in hand.
create function evaluator._admit(p_openings jsonb) returns jsonb
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_minute constant timestamptz := date_trunc('minute', core.now());
  v_admitted jsonb := p_openings;
  v_withheld jsonb;
  v_refusal record;
begin
  -- Most passes are far from every limit: a sum for each tenant shows it.
  if exists (
    select
    from (
      select o.tenant_id, count(*) as openings, count(*) filter (where o.closed_at is null) as stay
      from jsonb_to_recordset(p_openings) as o (tenant_id text, closed_at text)
      where o.tenant_id <> 'system'
      group by o.tenant_id
    ) t
    where t.stay + evaluator._open_alerts(t.tenant_id) > core._limit_of(t.tenant_id, 'alerts_open')
      or 2 * t.openings + evaluator._transitions_since(t.tenant_id, v_minute)
        > core._limit_of(t.tenant_id, 'transitions_per_minute')
  ) then
    with opening as materialized (
      select o.opening, o.position, o.opening ->> 'tenant_id' as tenant_id, o.opening ->> 'closed_at' is null as stays
      from jsonb_array_elements(p_openings) with ordinality as o (opening, position)
    ), tenant as materialized (
      select t.tenant_id, core._limit_of(t.tenant_id, 'alerts_open') as alerts_open,
        core._limit_of(t.tenant_id, 'transitions_per_minute') as transitions,
        evaluator._open_alerts(t.tenant_id) as open, evaluator._transitions_since(t.tenant_id, v_minute) as used
      from (select distinct o.tenant_id from opening o where o.tenant_id <> 'system') t
    ), placed as materialized (
      select o.*, t.used, t.transitions,
        coalesce(o.stays and t.open + count(*) filter (where o.stays) over earlier > t.alerts_open, false) as is_full
      from opening o
      left join tenant t using (tenant_id)
      window earlier as (partition by o.tenant_id order by o.position)
    ), judged as (
      select p.*, case
          when p.is_full then 'alerts_open'
          -- An alert that opens also closes, so it takes two.
          when p.used + 2 * count(*) filter (where not p.is_full) over earlier > p.transitions then 'transitions_per_minute'
        end as above
      from placed p
      window earlier as (partition by p.tenant_id order by p.position)
    )
    select coalesce(jsonb_agg(j.opening order by j.position) filter (where j.above is null), '[]'),
      jsonb_agg(j.opening || jsonb_build_object('above', j.above) order by j.position) filter (where j.above is not null)
    into v_admitted, v_withheld
    from judged j;
  end if;
  insert into evaluator.opening_counts as c (tenant_id, shard, minute, openings)
  select o.tenant_id, core.shard_of(o.tenant_id, o.device_id) as shard, v_minute, count(*)
  from jsonb_to_recordset(v_admitted) as o (tenant_id text, device_id text)
  where o.device_id is not null
  group by o.tenant_id, shard
  order by o.tenant_id, shard
  on conflict (tenant_id, shard) do update
  set minute = excluded.minute,
    openings = excluded.openings + case when c.minute = excluded.minute then c.openings else 0 end;
  if v_withheld is null then
    return v_admitted;
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
  return v_admitted;
end
$$;

comment on function evaluator._admit(jsonb) is
  'Return the openings that the limits alerts_open and transitions_per_minute of their tenants allow. The others are '
  'counted and audited; those whose condition still holds are tried again within a minute.';
