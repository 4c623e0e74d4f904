create function dispatcher._decide_kinds(p_tenant_ids text[], p_event_ids bigint[], p_kinds text[], p_wanted text[])
returns jsonb
language sql volatile
set search_path = pg_catalog, pg_temp
as $$
  select dispatcher._decide(
    coalesce(array_agg(e.tenant_id order by e.event_id), '{}'),
    coalesce(array_agg(e.event_id order by e.event_id), '{}'))
  from unnest(p_tenant_ids, p_event_ids, p_kinds) as e (tenant_id, event_id, kind)
  where e.kind = any (p_wanted)
$$;

comment on function dispatcher._decide_kinds(text[], bigint[], text[], text[]) is
  'Decide about those of the events whose kind is wanted.';
