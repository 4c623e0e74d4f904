-- A fixed list, so that the labels of the metrics over it cannot grow. Hot tables live on updates and deletes: if vacuum
-- does not keep up, every claim steps over dead rows.
create view ops.watched_tables as
select c.relname::text as table_name, c.oid as relid, w.is_hot
from (
  values
    ('public.telemetry'::regclass, false),
    ('public.audit_log', false),
    ('public.suppressions', false),
    ('public.service_metrics', false),
    ('audit.blocks', false),
    ('public.device_state', true),
    ('evaluator.inbox', true),
    ('public.rule_state', true),
    ('public.alerts', true),
    ('public.alert_events', true),
    ('ops.escalations', true),
    ('public.notification_jobs', true),
    ('public.delivery_attempts', true)
) w (relid, is_hot)
join pg_class c on c.oid = w.relid;

comment on view ops.watched_tables is 'Tables that metrics report on: those that grow, and those that are hot.';
