create function audit._close_attacks(p_at timestamptz) returns integer
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_finding record;
  v_closed integer := 0;
begin
  for v_finding in
    update audit.attack_findings f
    set closed_at = p_at
    from audit.attack_thresholds t
    where t.kind = f.kind
      and f.closed_at is null
      -- A finding that came late stays open as long as one that came in time, so that a person sees it.
      and greatest(f.last_at, f.detected_at) <= p_at - t.quiet_after
    returning f.kind, f.subject
  loop
    perform evaluator.close_alert_by_fingerprint(
      p_tenant_id => 'system',
      p_fingerprint => format('attack:%s:%s', v_finding.kind, v_finding.subject),
      p_reason => 'resolved',
      p_trace_id => core.current_trace_id()
    );
    v_closed := v_closed + 1;
  end loop;
  return v_closed;
end
$$;

comment on function audit._close_attacks(timestamptz) is
  'Close the findings, and their alerts, that were quiet for the quiet_after of their kind. Return their number.';
