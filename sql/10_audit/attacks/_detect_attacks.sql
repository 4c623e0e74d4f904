-- Searches the window that ends now, and one window for each past minute whose refusals arrived since the last pass:
-- from a writer's disk after the database was away, or while no detector ran. So an attack is judged by its own time, up
-- to a week later, and a thousand old refusals that arrive at once are no attack.
create function audit._detect_attacks(p_at timestamptz)
returns table (finding_id bigint, kind text, subject text, failures bigint)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_custom_plan
as $$
#variable_conflict use_column
declare
  v_since timestamptz;
  v_moment timestamptz;
  v_attack record;
  v_deadline constant timestamptz := clock_timestamp() + interval '10 seconds';
begin
  -- A search may take 10 seconds.
  if not ops._take_lock('detect_attacks', interval '20 seconds') then
    return;
  end if;
  -- A row is stamped before its transaction commits, and becomes visible later: hence the minute.
  select greatest(d.checked_at, p_at - interval '1 day') - interval '1 minute' into strict v_since
  from audit.attack_detector d;
  -- Now comes first, then the fullest minutes, so that a long backlog does not keep the pass from its end.
  for v_moment in
    (select p_at)
    union all
    (
      select max(l.timestamp)
      from public.audit_log l
      where l.event_type = 'auth.login_failure'
        and l.recorded_at > v_since
        and l.timestamp > p_at - interval '7 days'
        and l.timestamp < p_at - interval '1 minute'
        and l.details ->> 'account' is not null
      group by date_bin('1 minute', l.timestamp, '2000-01-01')
      order by sum(audit._occurrences(l.details)) desc
      limit 200
    )
  loop
    exit when clock_timestamp() > v_deadline;
    for v_attack in
      select * from audit._brute_force(v_moment)
      union all
      select * from audit._credential_stuffing(v_moment)
      union all
      select * from audit._password_spraying(v_moment)
      union all
      select * from audit._success_after_failures(v_moment)
    loop
      finding_id := audit._record_attack(v_attack.kind, v_attack.subject, v_attack.first_at, v_attack.last_at,
        v_attack.failures, v_attack.accounts, v_attack.addresses, p_at);
      if finding_id is not null then
        kind := v_attack.kind;
        subject := v_attack.subject;
        failures := v_attack.failures;
        return next;
      end if;
    end loop;
  end loop;
  perform audit._close_attacks(p_at);
  update audit.attack_detector set checked_at = p_at;
end
$$;

comment on function audit._detect_attacks(timestamptz) is
  'Search once for attacks as of a moment and return the new findings. Does nothing while another copy searches. Raises '
  '55P03 if that copy takes longer than a search may take.';
