-- The state machine of one rule and device:
--
--   idle ── breach ─▶ pending ── breach has lasted for_seconds ─▶ firing (open)
--    ▲                  │                                           │
--    └── no breach ─────┴────────────── no breach (close) ──────────┘
--
-- State is sparse: only pending and firing pairs have a row, so a quiet reading writes nothing.
-- Readings of one device and metric count one after the other, in the order of arrival, at their evaluation time
-- least(timestamp, arrival). The timer of a pending pair runs for for_seconds from the arrival of its first reading; when
-- it ends between two arrivals, the alert opens between them. The result does not depend on where a request or a pass ends,
-- unless the pair flaps (_collapse).
-- A reading older than one that counted before is late. It moves no state; a late breach of an idle pair without
-- for_seconds becomes an alert that ends at the newest reading, unless an alert of the pair ended since.
create function evaluator.evaluate(
  p_limit integer,
  p_pairs integer default 100000,
  p_tenant_ids text[] default null,
  p_after text default '',
  p_without text[] default '{}'
) returns table (
  readings integer, transitions jsonb, pairs bigint, busy_tenants text[], last_tenant text, saw_all boolean, weight integer
)
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
-- Planning the statements of a small pass costs more than running them, so one plan serves arrays of any length.
set plan_cache_mode = force_generic_plan
as $$
declare
  -- The bound keeps the cost of a pass independent of the number of waiting tenants.
  c_most_tenants constant integer := 64;
  v_tenant_ids text[] := p_tenant_ids;
  v_until bigint;
  v_lanes record;
  v_shards smallint[];
  v_late jsonb;
  v_transitions evaluator.transition[];
begin
  if v_tenant_ids is null then
    v_tenant_ids := evaluator.waiting_tenants(p_after, p_without, c_most_tenants);
  end if;
  last_tenant := coalesce(v_tenant_ids[cardinality(v_tenant_ids)], '');
  saw_all := cardinality(v_tenant_ids) < c_most_tenants;
  readings := 0;
  transitions := '[]';
  pairs := 0;
  busy_tenants := '{}';
  if cardinality(v_tenant_ids) = 0 then
    return next;
    return;
  end if;
  v_until := (select s.last_value from evaluator.inbox_arrival_seq s);
  v_lanes := evaluator._claim(v_tenant_ids, p_limit, p_pairs);
  if v_lanes.tenant_ids is not null then
    -- Each statement from here on has a snapshot taken after the locks: nothing another pass did is missed.
    select a.readings, a.pairs, a.transitions, a.late into readings, pairs, v_transitions, v_late
    from evaluator._advance(v_lanes.tenant_ids, v_lanes.shards, v_lanes.shares, v_lanes.pairs) a;
    if exists (
      select from unnest(v_transitions) t
      group by t.tenant_id, t.rule_id, t.device_id
      having count(*) > evaluator._most_changes()
    ) then
      v_transitions := evaluator._collapse(v_transitions, evaluator._most_changes());
    end if;
    v_transitions := v_transitions || evaluator._late_alerts(v_late)
      || evaluator._fire_timers(v_lanes.tenant_ids, v_lanes.shards, v_lanes.shares);
    if cardinality(v_transitions) > 0 then
      perform evaluator._apply(v_transitions);
      transitions := (
        select jsonb_agg(jsonb_build_object('kind', t.kind, 'tenant_id', t.tenant_id, 'rule_id', t.rule_id,
          'device_id', t.device_id, 'at', t.at, 'value', t.value, 'trace_id', t.trace_id))
        from unnest(v_transitions) t);
    end if;
  end if;
  if p_tenant_ids is not null then
    -- A tenant that is evaluated apart stays so until none of its lanes has readings left.
    select array_agg(t.tenant_id), array_agg(s.shard) into v_tenant_ids, v_shards
    from unnest(p_tenant_ids) as t (tenant_id)
    cross join generate_series(0, 15) as s (shard);
    busy_tenants := evaluator._busy_tenants(v_tenant_ids, v_shards, v_until);
    weight := core._limit_of(p_tenant_ids[1], 'evaluation_weight');
  elsif readings >= any (v_lanes.shares) or pairs >= any (v_lanes.pairs) then
    -- A lane may have readings left. Otherwise every claimed lane is empty.
    busy_tenants := evaluator._busy_tenants(v_lanes.tenant_ids, v_lanes.shards, v_until);
  elsif v_lanes.tenant_ids is null then
    perform evaluator._add_lanes(v_tenant_ids);
  end if;
  return next;
end
$$;

comment on function evaluator.evaluate(integer, integer, text[], text, text[]) is
  'Run one pass: evaluate at most p_limit new readings and about p_pairs pairs of a reading and a rule, in order for each '
  'device, open and close alerts in the same transaction, and return the work done and the transitions. Both limits are shared '
  'by p_tenant_ids, or else by the next 64 tenants with work after p_after, without p_without. busy_tenants have readings left '
  'beyond their share. last_tenant is the p_after of the next pass. saw_all is false if more tenants may have work. weight is '
  'that of the first of p_tenant_ids.';
