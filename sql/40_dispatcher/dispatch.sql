create function dispatcher.dispatch(p_limit integer) returns table (events integer, decisions jsonb)
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_tenant_ids text[];
  v_event_ids bigint[];
begin
  events := 0;
  decisions := '[]';
  -- One dispatcher at a time, so that job ids follow event ids: set-based passes leave nothing to gain from two, and
  -- a pass that finds the lock taken is woken again or finds the work at its next poll. A pass without work writes nothing.
  if not exists (select from public.alert_events e where e.dispatched_at is null) or not ops._take_lock('dispatch') then
    return next;
    return;
  end if;
  with pending as materialized (
    select e.tenant_id, e.event_id
    from public.alert_events e
    where e.dispatched_at is null
    order by e.event_id
    limit p_limit
  ), taken as (
    update public.alert_events e
    set dispatched_at = clock_timestamp()
    from pending p
    where e.tenant_id = p.tenant_id and e.event_id = p.event_id
    returning e.tenant_id, e.event_id
  )
  select array_agg(t.tenant_id order by t.event_id), array_agg(t.event_id order by t.event_id), count(*)
  into v_tenant_ids, v_event_ids, events
  from taken t;
  if events > 0 then
    decisions := dispatcher._decide(v_tenant_ids, v_event_ids);
    perform dispatcher._record(decisions);
  end if;
  return next;
end
$$;

comment on function dispatcher.dispatch(integer) is
  'One pass: decide about at most p_limit alert events in order and return how many there were and the decisions: each '
  'notification job, and the suppressed channels of each event as one. Raises 55P03 when another session has been deciding '
  'for more than 5 seconds.';
