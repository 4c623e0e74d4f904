create function audit.set_retention(p_days integer) returns void
language sql volatile security definer
set search_path = pg_catalog, pg_temp
begin atomic
  update audit.retention r set keep_days = p_days where r.keep_days <> p_days;
end;

comment on function audit.set_retention(integer) is
  'Record how many days the ops worker is set to keep, 0 for ever. audit.drop_segment drops nothing younger.';
