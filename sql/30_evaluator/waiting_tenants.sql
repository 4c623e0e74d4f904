-- A skip scan: each step to the next tenant costs two look-ups in an index, regardless of the number of waiting readings.
create function evaluator.waiting_tenants(p_after text, p_without text[], p_most integer) returns text[]
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
-- The inbox is empty one moment and long the next, so its statistics are always wrong.
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
    v_next := least(
      (select i.tenant_id from evaluator.inbox i where i.tenant_id > v_next order by i.tenant_id limit 1),
      (
        select s.tenant_id from public.rule_state s
        where s.due_at is not null and s.tenant_id > v_next
        order by s.tenant_id
        limit 1
      ));
    if v_is_second_half then
      exit when v_next is null or (p_after <> '' and v_next > p_after);
    elsif v_next is null then
      v_is_second_half := true;
      v_next := '';
      continue;
    end if;
    if v_next <> all (p_without) then
      v_tenant_ids := v_tenant_ids || v_next;
    end if;
    exit when v_next = p_after;
  end loop;
  return v_tenant_ids;
end
$$;

comment on function evaluator.waiting_tenants(text, text[], integer) is
  'Return the next p_most tenants after p_after, without those in p_without, that have readings or timers waiting. The first '
  'tenant follows the last one. If there are fewer than p_most, these are all.';
