create function audit._record_attack(
  p_kind text,
  p_subject text,
  p_first_at timestamptz,
  p_last_at timestamptz,
  p_failures bigint,
  p_accounts bigint,
  p_addresses bigint,
  p_at timestamptz
) returns bigint
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  -- An attack on thousands of accounts must not page a person thousands of times. All findings are recorded.
  v_most_alerts constant integer := 20;
  v_finding_id bigint;
  v_alert_id bigint;
  v_message text;
begin
  -- Late rows can show an attack that is over. It keeps its finding.
  select f.finding_id into v_finding_id
  from audit.attack_findings f
  where f.kind = p_kind and f.subject = p_subject
    and (f.closed_at is null or (f.last_at >= p_first_at and f.first_at <= p_last_at))
  order by f.closed_at nulls first, f.finding_id desc
  limit 1;
  if found then
    update audit.attack_findings f
    set
      first_at = least(f.first_at, p_first_at),
      last_at = greatest(f.last_at, p_last_at),
      failures = greatest(f.failures, p_failures),
      accounts = greatest(f.accounts, p_accounts),
      addresses = greatest(f.addresses, p_addresses)
    where f.finding_id = v_finding_id
      and (
        p_first_at < f.first_at or p_last_at > f.last_at or p_failures > f.failures or p_accounts > f.accounts
        or p_addresses > f.addresses
      );
    return null;
  end if;

  v_message := format('%s, %s: %s failures on %s accounts from %s addresses since %s UTC', replace(p_kind, '_', ' '), p_subject,
    p_failures, p_accounts, p_addresses, to_char(p_first_at at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS'));
  if (select count(*) from audit.attack_findings f where f.kind = p_kind and f.closed_at is null and f.alert_id is not null)
    < v_most_alerts
  then
    v_alert_id := evaluator.open_alert(
      p_tenant_id => 'system',
      p_fingerprint => format('attack:%s:%s', p_kind, p_subject),
      p_rule_name => 'attack detection',
      p_severity => 'critical',
      p_message => v_message,
      p_trace_id => core.current_trace_id()
    );
  end if;
  insert into audit.attack_findings
    (kind, subject, first_at, last_at, failures, accounts, addresses, detected_at, alert_id)
  values (p_kind, p_subject, p_first_at, p_last_at, p_failures, p_accounts, p_addresses, p_at, v_alert_id)
  returning finding_id into v_finding_id;
  perform audit.write(array[audit.event(
    p_tenant_id => 'system',
    p_event_type => 'auth.attack_suspected',
    p_entity_type => 'attack',
    p_entity_id => v_finding_id::text,
    p_entity_name => p_kind,
    p_message => v_message,
    p_details => jsonb_strip_nulls(jsonb_build_object(
      'kind', p_kind, 'subject', p_subject, 'failures', p_failures, 'accounts', p_accounts, 'addresses', p_addresses,
      'first_at', p_first_at, 'last_at', p_last_at, 'alert_id', v_alert_id,
      'account', case when p_kind in ('brute_force', 'success_after_failures') then p_subject end)),
    p_ip_address => case when p_kind = 'credential_stuffing' and p_subject <> 'unknown' then p_subject::inet end)]);
  return v_finding_id;
end
$$;

comment on function audit._record_attack is
  'Update the finding that an attack belongs to, or insert one with its event and its alert. Return the number of a new '
  'finding, else null.';
