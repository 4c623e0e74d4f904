create function ops._claim_escalations(p_limit integer) returns table (tenant_id text, alert_id bigint)
language sql volatile
set search_path = pg_catalog, pg_temp
as $$
  with recursive tenant (tenant_id) as (
    -- A skip scan over the tenants, which runs only if anything is due.
    select min(e.tenant_id) from ops.escalations e
    where exists (select from ops.escalations d where d.due_at <= core.now())
    union all
    select (select min(e.tenant_id) from ops.escalations e where e.tenant_id > t.tenant_id)
    from tenant t
    where t.tenant_id is not null
  ), waiting as materialized (
    select t.tenant_id, first.due_at, row_number() over (order by first.due_at) as turn, count(*) over () as tenants
    from tenant t
    cross join lateral (
      select e.due_at from ops.escalations e
      where e.tenant_id = t.tenant_id and e.due_at <= core.now()
      order by e.due_at
      limit 1
    ) first
  )
  select mine.tenant_id, mine.alert_id
  from waiting w
  cross join lateral (
    select escalation.tenant_id, escalation.alert_id
    from ops.escalations escalation
    join public.alerts alert
      on alert.tenant_id = escalation.tenant_id
      and alert.alert_id = escalation.alert_id
    where escalation.tenant_id = w.tenant_id
      and escalation.due_at <= core.now()
    order by escalation.due_at
    limit greatest(p_limit / w.tenants, 1)
    for no key update of alert skip locked
    for update of escalation skip locked
  ) mine
  where w.turn <= p_limit
$$;

comment on function ops._claim_escalations(integer) is
  'Lock at most p_limit due escalations with their alerts: the same share of each tenant, oldest first. Of more than '
  'p_limit tenants, take those that have waited longest.';
