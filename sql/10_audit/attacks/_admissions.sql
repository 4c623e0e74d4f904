-- All accounts in one scan: whatever index the planner takes, no row is read twice, however many accounts are asked for.
-- Without security definer or SET, so that it is inlined.
create function audit._admissions(p_accounts text[], p_after timestamptz, p_until timestamptz)
returns table (account text, network text, admitted_at timestamptz)
language sql stable
as $$
  select l.details ->> 'account', audit._address_group(l.ip_address), l.timestamp
  from public.audit_log l
  -- The first condition is asked once, so that nothing is read when there is nobody to look up.
  where p_accounts is not null
    and l.event_type like 'auth.%'
    and l.event_type = 'auth.login_success'
    and l.details ->> 'account' = any (p_accounts)
    and l.timestamp > p_after
    and l.timestamp <= p_until
$$;

comment on function audit._admissions(text[], timestamptz, timestamptz) is
  'When and from where accounts were let in, after one moment and up to another.';
