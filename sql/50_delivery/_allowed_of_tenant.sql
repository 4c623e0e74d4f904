-- Slots are not preempted: a request that hangs keeps its slot until its deadline. So half of the slots are kept free even
-- before another tenant has work.
create function delivery._allowed_of_tenant(p_slots integer) returns integer
language sql
stable
set search_path = pg_catalog, pg_temp
set jit = off
set enable_seqscan = off
set enable_bitmapscan = off
as $$
  select case
    when (select c.tenant_id from public.notification_channels c order by c.tenant_id limit 1)
      = (select c.tenant_id from public.notification_channels c order by c.tenant_id desc limit 1)
    then p_slots
    else greatest(p_slots / 2, 1)
  end
$$;

comment on function delivery._allowed_of_tenant(integer) is
  'Return the maximum number of one tenant''s jobs that a worker with p_slots slots sends at a time: half of the slots, or all '
  'slots if no other tenant has a channel.';
