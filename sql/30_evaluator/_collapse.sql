-- Openings and closings of a pair take turns, so the first and the last of them say where they began and where they ended:
--   opened … closed   one closed alert
--   opened … opened   one open alert, from the first opening on
--   closed … closed   the alert that was open closes at the last closing
--   closed … opened   the alert that was open stays open
create function evaluator._collapse(p_transitions jsonb, p_most integer) returns jsonb
language sql volatile
set search_path = pg_catalog, pg_temp
as $$
  with change as (
    select c.value, c.position, c.value ->> 'kind' as kind,
      count(*) over whole as changes,
      row_number() over (partition by c.value ->> 'tenant_id', c.value ->> 'rule_id', c.value ->> 'device_id'
        order by (c.value ->> 'n')::integer) as turn,
      first_value(c.value ->> 'kind') over (partition by c.value ->> 'tenant_id', c.value ->> 'rule_id',
        c.value ->> 'device_id' order by (c.value ->> 'n')::integer) as first_kind
    from jsonb_array_elements(p_transitions) with ordinality as c (value, position)
    window whole as (partition by c.value ->> 'tenant_id', c.value ->> 'rule_id', c.value ->> 'device_id')
  )
  select coalesce(jsonb_agg(
    case
      when c.changes <= p_most then c.value
      when c.first_kind = 'close' and c.kind = 'open' then c.value || jsonb_build_object('kind', 'flapping', 'changes', c.changes)
      when c.turn = 1 or c.first_kind = 'close' then c.value || jsonb_build_object('changes', c.changes)
      else c.value
    end order by c.position), '[]')
  from change c
  where c.changes <= p_most
    or (c.turn = 1 and c.kind = 'open')
    or (c.turn = c.changes and (c.kind = 'close' or c.first_kind = 'close'))
$$;

comment on function evaluator._collapse(jsonb, integer) is
  'Return a pass''s transitions; of a rule and device that has more than p_most of them only those that tell where they '
  'began and ended, with their number.';
