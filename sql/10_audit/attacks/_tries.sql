-- These refusals are not attempts to guess: expired and invalid_claims carry the issuer's signature (for example a browser
-- that was idle), missing_token names no account (health checks, crawlers), auth_unavailable was never checked, and a
-- device's token names no account (a broken gateway). A rate_limited request that was checked counts by its cause.
-- Without a cause it was not checked.
--
-- The window is one of timestamp, so rows that arrive late and all at once are as far apart as they were. The index is
-- the one of recorded_at, which selects few rows. A row is recorded after its event, except for differences between
-- clocks.
--
-- Without security definer or SET, so that it can be inlined and the planner knows its bounds.
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
  'Return failed tries to be let in as an account, after p_after and up to p_until.';
