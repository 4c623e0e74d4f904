-- The slow work comes first and blocks no session. Then come the locks: holds, so that a hold that is being placed is
-- seen or waits; the month against writers, so that no row arrives between the last check and the drop; and last the
-- parent, because it stops every writer of the trail until commit.
--
-- The owner of the tables can still drop a partition by hand, despite a hold: Postgres lets only a superuser forbid
-- that. But this leaves no tombstone, and pulse audit verify reports blocks that have neither rows nor a tombstone.
create function audit.drop_segment(p_segment date, p_days integer, p_note text) returns text
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set lock_timeout = '300ms'
as $$
declare
  v_keep_days integer;
  v_month record;
  v_buried record;
begin
  if p_days < 30 then
    raise exception using errcode = 'PU422', message = 'the audit trail must be kept for at least 30 days';
  end if;
  -- The caller may be another session than the timer, or a second timer with other settings.
  select r.keep_days into v_keep_days from audit.retention r;
  if v_keep_days = 0 or p_days < v_keep_days then
    raise exception using
      errcode = 'PU422',
      message = format(
        'the audit trail is kept %s, as the ops worker last set it',
        case v_keep_days when 0 then 'for ever' else format('for %s days', v_keep_days) end);
  elsif current_setting('transaction_isolation') <> 'read committed' then
    raise exception using errcode = 'PU422', message = 'call it in read committed: a hold must be visible once its lock is gone';
  end if;
  perform ops._await_lock('audit_retention');
  select m.* into v_month from audit._overdue_months(p_days) m where m.segment = p_segment;
  if not found then
    return 'gone';
  elsif v_month.obstacle is not null then
    return v_month.obstacle;
  end if;
  v_buried := audit._bury_blocks(p_segment, v_month.partition_name, p_note);
  if v_buried.fault is not null then
    return v_buried.fault;
  end if;
  lock table audit.holds in share row exclusive mode;
  execute format('lock table public.%I in share mode', v_month.partition_name);
  if exists (select from audit._overdue_months(p_days) m where m.segment = p_segment and m.obstacle is not null)
    or exists (
      select from audit.blocks b
      where b.segment = p_segment and b.block_no > audit._last_released_block(p_segment)
    )
  then
    raise exception using errcode = '55P03', message = 'the month got a hold or an event meanwhile: try again';
  end if;
  perform audit.write(array[audit.event(
    p_tenant_id => 'system',
    p_event_type => 'audit.segment_dropped',
    p_entity_type => 'partition',
    p_entity_id => v_month.partition_name,
    p_message => format(
      'The month %s of the audit trail was dropped, %s rows.', to_char(p_segment, 'YYYY-MM'), v_buried.row_count),
    p_details => jsonb_build_object(
      'segment', p_segment, 'rows', v_buried.row_count, 'keep_days', p_days, 'note', p_note)
  )]);
  execute format('drop table public.%I', v_month.partition_name);
  return 'dropped';
end
$$;

comment on function audit.drop_segment(date, integer, text) is
  'Drop a month of audit_log that ended that many days ago and store its signed tombstone, null for a month without '
  'blocks. The caller checks the signature. Return dropped; or, with nothing done: held, broken, unsealed, gone (no '
  'such month), altered (its rows are not as many as were sealed) or different (the tombstone contradicts the '
  'database). Raises 55P03 if a lock is not free in time or a hold or an event comes in between, and PU422 for fewer '
  'days than audit.retention has, or if it has none.';
