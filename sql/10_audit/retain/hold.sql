-- audit.drop_segment excludes the lock that the insert takes. A hold that is placed while a month is dropped is either
-- seen, or waits until the month is gone and records that in its event.
create function audit.hold(p_from timestamptz, p_to timestamptz, p_reason text) returns bigint
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_hold audit.holds;
begin
  if coalesce(btrim(p_reason), '') = '' then
    raise exception using errcode = 'PU422', message = 'a hold needs a reason';
  elsif p_from >= p_to then
    raise exception using errcode = 'PU422', message = format('a hold from %s must end after its start, not at %s', p_from, p_to);
  end if;
  insert into audit.holds (starts_at, ends_at, reason, placed_by)
  values (
    coalesce(p_from, '-infinity'),
    coalesce(p_to, 'infinity'),
    audit._printable(p_reason, 2000),
    coalesce(core.current_actor_id(), session_user)
  )
  returning * into v_hold;
  perform audit.write(array[audit.event(
    p_tenant_id => 'system',
    p_event_type => 'audit.hold_placed',
    p_entity_type => 'hold',
    p_entity_id => v_hold.hold_id::text,
    p_details => jsonb_build_object(
      'from', v_hold.starts_at, 'to', v_hold.ends_at, 'reason', v_hold.reason, 'database_role', session_user,
      'dropped_before', (select to_jsonb(l.dropped_months) from audit.legal_holds l where l.hold_id = v_hold.hold_id)
    ))]);
  return v_hold.hold_id;
end
$$;

comment on function audit.hold(timestamptz, timestamptz, text) is
  'Keep every event from p_from to before p_to (null: unbounded) from being dropped, until audit.release of the '
  'returned number. Whole months are kept.';
