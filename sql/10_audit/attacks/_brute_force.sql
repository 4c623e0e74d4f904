-- Each search is planned anew for its own window. A generic plan would expect a third of all refusals.
create function audit._brute_force(p_at timestamptz)
returns table (
  kind text, subject text, first_at timestamptz, last_at timestamptz, failures bigint, accounts bigint, addresses bigint
)
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_custom_plan
as $$
#variable_conflict use_column
declare
  v_threshold record;
begin
  select * into strict v_threshold from audit.attack_thresholds t where t.kind = 'brute_force';
  return query
    select
      v_threshold.kind, f.account, min(f.tried_at), max(f.tried_at), sum(f.tries)::bigint, 1::bigint,
      count(distinct f.network)
    from audit._tries(p_at - v_threshold.time_window, p_at) f
    group by f.account
    having sum(f.tries) >= v_threshold.min_failures;
end
$$;

comment on function audit._brute_force(timestamptz) is
  'Find accounts with many failed tries in the window that ends at a moment.';
