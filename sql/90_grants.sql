-- The rights of each role. PUBLIC gets none, partitions get none, and a name that starts with an underscore is internal and
-- granted to no role. Runs after all files that create objects. Objects of extensions are left alone.

do $grants$
declare
  v_schemas constant text[] := '{core,audit,ingest,evaluator,dispatcher,delivery,ops,trace,metrics,api}';
  v_routine record;
  v_view record;
begin
  -- PUBLIC may execute a new function until this is revoked.
  for v_routine in
    select p.oid::regprocedure as name, p.proname like '\_%' or p.prorettype = 'trigger'::regtype as internal
    from pg_proc p
    where p.pronamespace = any (v_schemas::regnamespace[]) and p.proowner = current_user::regrole
    order by p.oid::regprocedure::text
  loop
    execute format('revoke all on routine %s from public', v_routine.name);
    if not v_routine.internal then
      execute format('grant execute on routine %s to pulse_app', v_routine.name);
    end if;
  end loop;

  -- Not for pulse_app, which answers strangers. Only the owner decides what is audited. Auditors read all tenants and place
  -- holds, which no service that writes or drops evidence may do. Only the ops worker seals, verifies and drops months.
  for v_routine in
    select name, r.role
    from (values
      (null, '{audit.track, audit.untrack}'::regproc[]),
      ('pulse_auditor', '{audit.count_events, audit.find_event, audit.hold, audit.read_all_events,
        audit.read_events_between, audit.record_read, audit.release, audit.trace}'),
      ('pulse_auditor', '{audit.count_rows, audit.read_leaves, audit.read_nodes}'),
      ('pulse_ops', '{audit.count_rows, audit.read_leaves, audit.read_nodes}'),
      ('pulse_ops', '{audit.append_blocks, audit.cut_log, audit.detect_attacks, audit.drop_segment, audit.lease_seal,
        audit.read_entries, audit.read_head, audit.read_place, audit.read_segment, audit.read_tombstones,
        audit.read_unsealed, audit.read_verifications, audit.record_retention_run, audit.record_verification,
        audit.register_epoch, audit.release_seal, audit.report_broken_log, audit.retention_candidate,
        audit.set_retention}')
    ) as r (role, names)
    cross join unnest(r.names) as name
    order by name::text, r.role
  loop
    execute format('revoke execute on function %s from pulse_app', v_routine.name);
    if v_routine.role is not null then
      execute format('grant execute on function %s to %I', v_routine.name, v_routine.role);
    end if;
  end loop;

  for v_view in
    select c.oid::regclass as name, r.role
    from pg_class c
    join (values
      ('api', 'pulse_app', null),
      ('api', 'pulse_ui', null),
      ('api', 'pulse_evaluator', 'queues'),
      ('api', 'pulse_dispatcher', 'queues'),
      ('api', 'pulse_delivery', 'queues'),
      ('api', 'pulse_ops', 'queues'),
      ('metrics', 'pulse_app', null),
      ('metrics', 'pulse_exporter', null),
      ('audit', 'pulse_auditor', null),
      ('api', 'pulse_operator', null),
      ('audit', 'pulse_operator', null),
      ('metrics', 'pulse_operator', null),
      ('ops', 'pulse_operator', null),
      ('trace', 'pulse_operator', null)
    ) as r (schema, role, view) on c.relnamespace = r.schema::regnamespace and c.relname = coalesce(r.view, c.relname)
    where c.relkind = 'v' and c.relowner = current_user::regrole
    order by c.oid::regclass::text, r.role
  loop
    execute format('grant select on %s to %I', v_view.name, v_view.role);
  end loop;

  -- Tables inside a view are read as its owner, but functions inside it run as the reader, which needs EXECUTE on each.
  -- Without USAGE on their schema the reader still cannot call them by name.
  for v_routine in
    with recursive reads (role, view) as (
      select a.grantee::regrole, c.oid
      from pg_class c
      cross join aclexplode(c.relacl) a
      where c.relkind = 'v'
        and a.privilege_type = 'SELECT'
        and a.grantee <> 0
        and c.relnamespace = any (v_schemas::regnamespace[])
      union
      select reads.role, d.refobjid
      from reads
      join pg_rewrite w on w.ev_class = reads.view
      join pg_depend d on d.classid = 'pg_rewrite'::regclass and d.objid = w.oid and d.refclassid = 'pg_class'::regclass
      join pg_class c on c.oid = d.refobjid and c.relkind = 'v'
    )
    select distinct p.oid::regprocedure::text as name, reads.role::text
    from reads
    join pg_rewrite w on w.ev_class = reads.view
    join pg_depend d on d.classid = 'pg_rewrite'::regclass and d.objid = w.oid and d.refclassid = 'pg_proc'::regclass
    join pg_proc p on p.oid = d.refobjid and p.pronamespace = any (v_schemas::regnamespace[])
    where reads.role <> current_user::regrole and p.proowner = current_user::regrole
    order by 1, 2
  loop
    execute format('grant execute on routine %s to %s', v_routine.name, v_routine.role);
  end loop;
end
$grants$;

grant usage on schema core, audit, ingest, evaluator, dispatcher, delivery, ops, metrics, api to pulse_app;
grant usage on schema audit, core to pulse_auditor;
-- An auditor names the person that places a hold.
grant execute on function core.act, core.name_request to pulse_auditor;
grant usage on schema metrics to pulse_exporter;

-- For the audit writer's COPY. Rows are read through api views. Only the database sets recorded_at and xid.
grant insert (
  tenant_id, timestamp, event_id, event_type, category, severity, entity_type, entity_id, entity_name, action, message,
  details, source_service, actor_type, actor_id, actor_name, ip_address, trace_id, duration_ms
) on public.audit_log to pulse_app;
grant select on public.audit_log to pulse_auditor;
-- The evidence that a verification reads.
grant select on
  audit.blocks, audit.tree_nodes, audit.checkpoints, audit.signing_keys, audit.tombstones, audit.holds
to pulse_auditor;

-- The recorded layer, which verifications compare with the catalog.
grant select on public.sql_layer, audit.tracked_tables to pulse_auditor, pulse_ops;

-- The ops worker verifies hashes and never reads the content of a row.
grant select on
  audit.block_headers, audit.log_checkpoints, audit.log_keys, audit.log_nodes, audit.log_tombstones
to pulse_ops;
-- For objects that the owner creates by hand: a view in metrics is served at the next scrape; a function has no grants.
alter default privileges in schema metrics grant select on tables to pulse_app, pulse_exporter, pulse_operator;
alter default privileges revoke execute on routines from public;
