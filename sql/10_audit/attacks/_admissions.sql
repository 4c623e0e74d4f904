-- Reads all accounts in one scan, so that no row is read twice, whichever index the planner takes. Without security
-- definer or SET, so that it can be inlined.
create function audit._admissions(p_accounts text[], p_after timestamptz, p_until timestamptz)
returns table (account text, network text, admitted_at timestamptz)
language sql stable
as $$
  select l.details ->> 'account', audit._address_group(l.ip_address), l.timestamp
  from public.audit_log l
  -- Checked once, so that nothing is read if there is no account to look up.
  where p_accounts is not null
    and l.event_type like 'auth.%'
    and l.event_type = 'auth.login_success'
    and l.details ->> 'account' = any (p_accounts)
    and l.timestamp > p_after
    and l.timestamp <= p_until
$$;

comment on function audit._admissions(text[], timestamptz, timestamptz) is
  'Return when and from where the accounts were let in, after p_after and up to p_until.';
