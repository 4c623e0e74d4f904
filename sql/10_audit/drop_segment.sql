-- The order of the locks: holds first, so that one that is being placed is seen or waits; then the month against writers,
-- so that nothing arrives between the checks and the end; the parent last, for it stops every writer of the trail until
-- commit. Whoever owns the tables can still drop a partition by hand, hold or not: Postgres lets only a superuser forbid
-- that. But it leaves no tombstone, and blocks without rows and without a tombstone are what pulse audit verify finds.
create function audit.drop_segment(p_segment date, p_days integer, p_note text) returns text
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set lock_timeout = '300ms'
as $$
declare
  v_month record;
  v_rows bigint;
  v_fault text;
begin
  if p_days < 30 then
    raise exception using errcode = 'PU422', message = 'the audit trail is kept for 30 days at least';
  elsif current_setting('transaction_isolation') <> 'read committed' then
    raise exception using errcode = 'PU422', message = 'call it in read committed: a hold must be seen once its lock is gone';
  end if;
  lock table audit.holds in share row exclusive mode;
  select m.* into v_month from audit._overdue_months(p_days) m where m.segment = p_segment;
  if not found then
    return 'gone';
  elsif v_month.obstacle is not null then
    return v_month.obstacle;
  end if;
  execute format('lock table public.%I in share mode', v_month.partition_name);
  select m.* into v_month from audit._overdue_months(p_days) m where m.segment = p_segment;
  if v_month.obstacle is not null then
    return v_month.obstacle;
  end if;
  execute format('select count(*) from public.%I', v_month.partition_name) into v_rows;
  v_fault := audit._bury_blocks(p_segment, v_rows, p_note);
  if v_fault is not null then
    return v_fault;
  end if;
  perform audit.write(array[audit.event(
    p_tenant_id => 'system',
    p_event_type => 'audit.segment_dropped',
    p_entity_type => 'partition',
    p_entity_id => v_month.partition_name,
    p_message => format('The month %s of the audit trail was dropped, %s rows.', to_char(p_segment, 'YYYY-MM'), v_rows),
    p_details => jsonb_build_object('segment', p_segment, 'rows', v_rows, 'keep_days', p_days, 'note', p_note)
  )]);
  execute format('drop table public.%I', v_month.partition_name);
  return 'dropped';
end
$$;

comment on function audit.drop_segment(date, integer, text) is
  'Drop a month of audit_log that is over for so many days and store its signed tombstone, null for a month without '
  'blocks. Gives dropped; or, with nothing done: held, unsealed, gone (no such month), altered (it has not as many rows as '
  'were sealed), different (the tombstone does not say what the database says). Raises 55P03 when a lock is not free in '
  'time. The signature is for the caller to check.';
