create function dispatcher._take_events(p_tenant_ids text[], p_limit integer, p_decisions integer)
returns table (tenant_id text, event_id bigint)
language sql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
-- Planning costs more than taking a few events, so one plan serves arrays of any length.
set plan_cache_mode = force_generic_plan
as $$
  with tenant as materialized (
    select t.tenant_id, greatest(least(p_limit, p_decisions / greatest(named.channels, 1)), 1) as most
    from unnest(p_tenant_ids) as t (tenant_id)
    cross join lateral (
      select count(*) as channels
      from (
        select r.channel_id from public.notification_routes r where r.tenant_id = t.tenant_id
        union
        select s.channel_id from public.escalation_steps s where s.tenant_id = t.tenant_id
      ) c
    ) named
  )
  update public.alert_events e
  set dispatched_at = clock_timestamp()
  from tenant t
  cross join lateral (
    select p.event_id
    from public.alert_events p
    where p.tenant_id = t.tenant_id and p.dispatched_at is null
    order by p.tenant_id, p.event_id
    limit t.most
  ) pending
  where e.tenant_id = t.tenant_id and e.event_id = pending.event_id
  returning e.tenant_id, e.event_id
$$;

comment on function dispatcher._take_events(text[], integer, integer) is
  'Take the oldest undecided events of each tenant: at most p_limit, and about p_decisions pairs of an event and a channel '
  'that a route or an escalation step of the tenant names.';
