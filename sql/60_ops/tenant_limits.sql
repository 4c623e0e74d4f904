create function ops.tenant_limits(p_tenant_id text)
returns table (limit_name text, value bigint, is_default boolean, used bigint, refused bigint)
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $$
  select d.limit_name, coalesce(o.value, d.value), o.value is null,
    case d.limit_name
      when 'alerts_open' then (select count(*) from public.alerts a where a.tenant_id = p_tenant_id and a.status <> 'closed')
      when 'transitions_per_minute' then (
        select coalesce(2 * sum(c.openings), 0)
        from evaluator.opening_counts c
        where c.tenant_id = p_tenant_id and c.minute = date_trunc('minute', core.now()))
      when 'series' then ingest._series(p_tenant_id)
      else coalesce(u.used, 0)
    end,
    coalesce((
      select sum(r.refused) from ops.limit_refusals r
      where r.tenant_id = p_tenant_id and r.limit_name = d.limit_name), 0)
  from public.tenant_limits d
  left join public.tenant_limits o on o.tenant_id = p_tenant_id and o.limit_name = d.limit_name
  left join public.tenant_usage u on u.tenant_id = p_tenant_id and u.limit_name = d.limit_name
  where d.tenant_id = 'system'
  order by d.limit_name
$$;

comment on function ops.tenant_limits(text) is
  'Return the limits of a tenant (value 0: unlimited): whether each is the default, how much is used, and how often it '
  'refused something.';
