create function audit.release(p_hold_id bigint, p_reason text) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_hold audit.holds;
begin
  if coalesce(btrim(p_reason), '') = '' then
    raise exception using errcode = 'PU422', message = 'the release of a hold needs a reason';
  end if;
  update audit.holds h
  set
    released_by = coalesce(core.current_actor_id(), session_user),
    released_at = clock_timestamp(),
    release_reason = audit._printable(p_reason, 2000)
  where h.hold_id = p_hold_id and h.released_at is null
  returning h.* into v_hold;
  if not found then
    raise exception using errcode = 'PU404', message = format('there is no hold %s in force', p_hold_id);
  end if;
  perform audit.write(array[audit.event(
    p_tenant_id => 'system',
    p_event_type => 'audit.hold_released',
    p_entity_type => 'hold',
    p_entity_id => v_hold.hold_id::text,
    p_details => jsonb_build_object(
      'from', v_hold.starts_at, 'to', v_hold.ends_at, 'reason', v_hold.release_reason, 'database_role', session_user,
      'placed_by', v_hold.placed_by, 'placed_for', v_hold.reason
    ))]);
end
$$;

comment on function audit.release(bigint, text) is
  'End a legal hold, which stays on record. Raises PU404 if no hold in force has this number.';
