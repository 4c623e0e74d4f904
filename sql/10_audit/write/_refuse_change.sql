-- Guards against mistakes, not against the owner, which can disable any trigger. ops.ensure_partitions does so on the
-- default partition, under a lock, to move rows into their own partition.
create function audit._refuse_change() returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  raise exception using
    errcode = 'PU403',
    message = format('%I.%I is append-only: %s refused', tg_table_schema, tg_table_name, tg_op);
end
$$;

comment on function audit._refuse_change() is 'Raise PU403: rows of the audit trail are never changed or removed.';
