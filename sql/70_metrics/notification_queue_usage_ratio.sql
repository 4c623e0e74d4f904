create view metrics.notification_queue_usage_ratio as
select pg_notification_queue_usage() as value;

comment on view metrics.notification_queue_usage_ratio is
  'Used share of the NOTIFY queue; from 0.5 on Pulse polls instead of notifying, at 1 each commit that notifies fails.';
