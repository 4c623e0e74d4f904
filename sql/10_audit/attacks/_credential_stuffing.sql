-- Statistics lag behind an attack. A nested loop that was planned for a few pairs would take minutes.
create function audit._credential_stuffing(p_at timestamptz)
returns table (
  kind text, subject text, first_at timestamptz, last_at timestamptz, failures bigint, accounts bigint, addresses bigint
)
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_custom_plan
set enable_nestloop = off
set jit = off
as $$
#variable_conflict use_column
declare
  v_threshold record;
begin
  select * into strict v_threshold from audit.attack_thresholds t where t.kind = 'credential_stuffing';
  return query
    select v_threshold.kind, p.network, min(p.first_at), max(p.last_at), sum(p.tries)::bigint, count(*), 1::bigint
    from audit._tries_by_pair(p_at - v_threshold.time_window, p_at, v_threshold.min_accounts) p
    where p.tries >= v_threshold.min_tries
    group by p.network
    having count(*) >= v_threshold.min_accounts and sum(p.tries) >= v_threshold.min_failures;
end
$$;

comment on function audit._credential_stuffing(timestamptz) is
  'Find addresses that tried many accounts in the window that ends at a moment.';
