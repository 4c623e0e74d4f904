create function audit.read_place()
returns table (
  epoch bigint, is_known boolean, system_identifier bigint, timeline integer, database_oid bigint, sealer text
)
language sql stable security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select
    now.epoch,
    exists (select from audit.epochs e where e.epoch = now.epoch),
    audit._system_identifier(),
    audit._timeline(),
    (select d.oid::bigint from pg_database d where d.datname = current_database()),
    (select s.holder from audit.sealer s where s.lease_until > clock_timestamp())
  from (select audit._epoch() as epoch) as now;
end;

comment on function audit.read_place() is
  'Return the server and database that the trail is written on, the epoch of its rows, whether audit.epochs has that '
  'epoch, and the process that holds the right to seal.';
