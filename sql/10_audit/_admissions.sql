-- Without security definer or SET, so that it is inlined and the account leads to its rows.
create function audit._admissions(p_account text, p_after timestamptz, p_until timestamptz)
returns table (admitted_at timestamptz, network text)
language sql stable
as $$
  select l.timestamp, audit._address_group(l.ip_address)
  from public.audit_log l
  where l.event_type like 'auth.%'
    and l.event_type = 'auth.login_success'
    and l.details ->> 'account' = p_account
    and l.timestamp > p_after
    and l.timestamp <= p_until
$$;

comment on function audit._admissions(text, timestamptz, timestamptz) is
  'When and from where an account was let in, after one moment and up to another.';
