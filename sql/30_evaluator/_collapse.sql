-- Openings and closings of a pair take turns, so the first and the last one show the states before and after:
--   opened … closed   one closed alert
--   opened … opened   one open alert, from the first opening on
--   closed … closed   the alert that was open closes at the last closing
--   closed … opened   the alert that was open stays open
create function evaluator._collapse(p_transitions evaluator.transition[], p_most integer) returns evaluator.transition[]
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  return (
    with change as (
      select c.*, count(*) over pair as changes_of_pair, row_number() over ordered as turn,
        first_value(c.kind) over ordered as first_kind
      from unnest(p_transitions) with ordinality as c
      window pair as (partition by c.tenant_id, c.rule_id, c.device_id),
        ordered as (partition by c.tenant_id, c.rule_id, c.device_id order by c.n)
    )
    select array_agg(
      evaluator._transition(
        case when s.stays_open then 'flapping' else c.kind end, c.tenant_id, c.rule_id, c.device_id, c.n, c.at, c.value,
        c.received_at, c.trace_id, case when s.speaks_for_all then c.changes_of_pair::integer end)
      order by c.ordinality)
    from change c
    cross join lateral (
      select c.changes_of_pair > p_most and c.first_kind = 'close' and c.kind = 'open' as stays_open,
        c.changes_of_pair > p_most and (c.turn = 1 or c.first_kind = 'close') as speaks_for_all
    ) s
    where c.changes_of_pair <= p_most
      or (c.turn = 1 and c.kind = 'open')
      or (c.turn = c.changes_of_pair and (c.kind = 'close' or c.first_kind = 'close')));
end
$$;

comment on function evaluator._collapse(evaluator.transition[], integer) is
  'Return a pass''s transitions. For a rule and device with more than p_most transitions, return only those that show the '
  'states before and after, with the number of transitions.';
