create function core.now() returns timestamptz
language sql stable parallel safe
set search_path = pg_catalog, pg_temp
return now();

comment on function core.now() is
  'Return the time that decides whether something is due. Audit rows are stamped by clock_timestamp() instead.';
