create function dispatcher.dispatch(p_limit integer, p_after text default '')
returns table (events integer, decisions jsonb, last_tenant text)
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  -- The bound keeps the cost of a pass independent of the number of waiting tenants.
  c_most_tenants constant integer := 64;
  -- A tenant whose routes and escalation steps name more channels gets fewer events.
  c_decisions_an_event constant integer := 4;
  v_waiting text[];
  v_share integer;
  v_tenant_ids text[];
  v_event_ids bigint[];
begin
  events := 0;
  decisions := '[]';
  last_tenant := p_after;
  -- One dispatcher works at a time, so that job ids follow event ids; a second one would gain nothing beside set-based
  -- passes. A pass that finds the lock taken is woken again or finds the work at its next poll. An idle pass writes nothing.
  v_waiting := dispatcher._waiting_tenants(p_after, c_most_tenants);
  if cardinality(v_waiting) = 0 or not ops._take_lock('dispatch') then
    return next;
    return;
  end if;
  last_tenant := coalesce(v_waiting[cardinality(v_waiting)], '');
  v_share := greatest(p_limit / greatest(cardinality(v_waiting), 1), 1);
  select array_agg(t.tenant_id order by t.event_id), array_agg(t.event_id order by t.event_id), count(*)
  into v_tenant_ids, v_event_ids, events
  from dispatcher._take_events(v_waiting, v_share, c_decisions_an_event * v_share) t;
  if events > 0 then
    decisions := dispatcher._decide(v_tenant_ids, v_event_ids);
    perform dispatcher._record(decisions);
  end if;
  return next;
end
$$;

comment on function dispatcher.dispatch(integer, text) is
  'Run one pass: decide at most p_limit alert events, in order for each tenant, with about four channels for each event. Return '
  'the number of events and the decisions: each notification job, and one entry for the suppressed channels of each event. The '
  'next 64 tenants after p_after share the limit; last_tenant is the p_after of the next pass. Raise 55P03 if another session '
  'has been deciding for more than 5 seconds.';
