create function evaluator._has_many_rules(p_tenant_ids text[], p_shares integer[], p_pairs integer[]) returns boolean
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return exists (
    select
    from (
      select l.tenant_id, min(l.pairs) / sum(l.share) as rules
      from unnest(p_tenant_ids, p_shares, p_pairs) as l (tenant_id, share, pairs)
      group by l.tenant_id
    ) t
    where (
      select count(*)
      from (select from public.alert_rules r where r.tenant_id = t.tenant_id and r.enabled limit t.rules + 1) few
    ) > t.rules);
end
$$;

comment on function evaluator._has_many_rules(text[], integer[], integer[]) is
  'Return true if a tenant of these lanes has so many rules that its share of pairs may end before its share of readings.';
