create view metrics.notification_queue_usage_ratio as
select pg_notification_queue_usage() as value;

comment on view metrics.notification_queue_usage_ratio is
  'Share of the NOTIFY queue that is full; at 1 every commit that notifies fails.';
