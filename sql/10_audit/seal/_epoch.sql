create function audit._epoch() returns bigint
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_newest record;
begin
  select e.*, e.xmin::text::bigint as actual_xmin, e.tableoid::bigint as actual_oid into v_newest
  from audit.epochs e
  order by e.epoch desc
  limit 1;
  if not found then
    return 0;
  end if;
  return v_newest.epoch + (
    v_newest.row_xmin <> v_newest.actual_xmin
    or v_newest.relation_oid <> v_newest.actual_oid
    or coalesce(v_newest.system_identifier <> audit._system_identifier(), false)
  )::integer;
end
$$;

comment on function audit._epoch() is
  'Return the epoch of the rows that are written now: the newest of audit.epochs if this is the server that it '
  'describes, else the next one. Recording a move in audit.epochs does not change the result.';
