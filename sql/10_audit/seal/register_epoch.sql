create function audit.register_epoch() returns bigint
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_epoch bigint;
begin
  lock table audit.epochs in share row exclusive mode;
  v_epoch := audit._epoch();
  if exists (select from audit.epochs e where e.epoch = v_epoch) then
    -- While nothing is signed, a copy of the database may start its own log.
    if exists (select from audit.blocks) then
      return v_epoch;
    end if;
    delete from audit.epochs e where e.epoch = v_epoch;
  end if;
  insert into audit.epochs (epoch, system_identifier, timeline, database_oid, relation_oid, row_xmin)
  select
    v_epoch, audit._system_identifier(), audit._timeline(), d.oid::bigint, 0, 0
  from pg_database d
  where d.datname = current_database();
  -- The row's own xmin, which may be that of a subtransaction.
  update audit.epochs e set row_xmin = e.xmin::text::bigint, relation_oid = e.tableoid::bigint where e.epoch = v_epoch;
  return v_epoch;
end
$$;

comment on function audit.register_epoch() is
  'Record the server that writes to the trail now, unless it is known, and return its epoch. While no block is sealed, '
  'a known epoch is recorded anew.';
