create function evaluator._add_lanes(p_tenant_ids text[]) returns void
language sql volatile
set search_path = pg_catalog, pg_temp
as $$
  insert into evaluator.lanes (tenant_id, shard)
  select t.tenant_id, s.shard
  from unnest(p_tenant_ids) as t (tenant_id)
  cross join generate_series(0, 15) as s (shard)
  where not exists (select from evaluator.lanes l where l.tenant_id = t.tenant_id)
  order by t.tenant_id, s.shard
  on conflict do nothing
$$;

comment on function evaluator._add_lanes(text[]) is
  'Insert the sixteen lanes of each tenant that has none.';
