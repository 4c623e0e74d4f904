create function ops._partition_plan(p_ahead_days integer, p_ahead_months integer)
returns table (parent text, name text, lower_bound timestamptz, upper_bound timestamptz)
language sql stable
set search_path = pg_catalog, pg_temp
set timezone = 'UTC'
as $$
  with wanted (parent, step, pattern, starts_at) as (
    -- Readings are accepted up to 7 days back, so today and the 8 days before can be written to.
    select 'telemetry', interval '1 day', 'YYYYMMDD', date_trunc('day', core.now()) + day * interval '1 day'
    from generate_series(-8, p_ahead_days) day
    union
    select 'telemetry', interval '1 day', 'YYYYMMDD', date_trunc('day', timestamp)
    from only public.telemetry_default
    where timestamp between core.now() - interval '10 years' and core.now() + interval '1 year'
    union
    select 'audit_log', interval '1 month', 'YYYYMM', date_trunc('month', core.now()) + month * interval '1 month'
    from generate_series(-1, p_ahead_months) month
    union
    select 'audit_log', interval '1 month', 'YYYYMM', date_trunc('month', timestamp)
    from only public.audit_log_default
    where timestamp between core.now() - interval '10 years' and core.now() + interval '1 year'
  )
  select
    wanted.parent,
    wanted.parent || '_' || to_char(wanted.starts_at, wanted.pattern),
    wanted.starts_at,
    wanted.starts_at + wanted.step
  from wanted
  -- Locks are taken in the order of ingest, which writes readings first and the audit trail second.
  order by wanted.parent desc, wanted.starts_at
$$;

comment on function ops._partition_plan(integer, integer) is
  'Return the partitions that should exist now: telemetry by UTC day from 8 days back, audit_log by UTC month from the '
  'previous one, both up to the given number ahead, and those of rows in a default partition.';
