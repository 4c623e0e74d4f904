-- A skip scan: each step to the next tenant costs one look-up in an index, regardless of the number of waiting events.
create function dispatcher._waiting_tenants(p_after text, p_most integer) returns text[]
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set enable_sort = off
as $$
declare
  v_tenant_ids text[] := '{}';
  v_next text := p_after;
  v_is_second_half boolean := p_after = '';
begin
  while cardinality(v_tenant_ids) < p_most loop
    v_next := (
      select e.tenant_id from public.alert_events e
      where e.dispatched_at is null and e.tenant_id > v_next
      order by e.tenant_id
      limit 1);
    if v_is_second_half then
      exit when v_next is null or (p_after <> '' and v_next > p_after);
    elsif v_next is null then
      v_is_second_half := true;
      v_next := '';
      continue;
    end if;
    v_tenant_ids := v_tenant_ids || v_next;
    exit when v_next = p_after;
  end loop;
  return v_tenant_ids;
end
$$;

comment on function dispatcher._waiting_tenants(text, integer) is
  'Return the next p_most tenants after p_after that have undecided events. The first tenant follows the last one.';
