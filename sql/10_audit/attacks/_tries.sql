-- What is no try, and why it must not look like one: expired and invalid_claims carry a signature of the issuer, so that
-- nobody guessed (a fleet of browsers coming back from lunch); missing_token names no account (health checks, crawlers);
-- auth_unavailable was never checked; a device's token names no account either (a broken gateway). A rate_limited request
-- was checked as every other: its cause decides. Without a cause it was not checked, and is no try.
--
-- The window is one of timestamp, when it happened: rows that arrive late, all at once, are as far apart as they were.
-- The index is that of recorded_at, whose rows are few; a row is recorded after it happened, but for clocks that differ.
--
-- Without security definer or SET, so that it is inlined and its bounds are known to the planner.
create function audit._tries(p_after timestamptz, p_until timestamptz)
returns table (tried_at timestamptz, account text, network text, tries bigint)
language sql stable
as $$
  select l.timestamp, l.details ->> 'account', audit._address_group(l.ip_address), audit._occurrences(l.details)
  from public.audit_log l
  where l.event_type in ('auth.login_failure', 'auth.rate_limited')
    and l.recorded_at > p_after - interval '5 minutes'
    and l.timestamp > p_after
    and l.timestamp <= p_until
    and case l.event_type when 'auth.rate_limited' then l.details ->> 'cause' else l.details ->> 'reason' end
      in ('invalid_token', 'unknown_key')
    and l.details ->> 'account' is not null
$$;

comment on function audit._tries(timestamptz, timestamptz) is
  'Failed tries to be let in as an account, after one moment and up to another.';
