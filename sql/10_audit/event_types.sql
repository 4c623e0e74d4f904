-- The closed registry: audit.write refuses a type that is not listed here. To add one, add a line.
-- Only what a fleet sends all the time may be lost; the writer in services/shared/audit knows the same types.
create view audit.event_types as
select
  t.event_type,
  t.severity,
  t.description,
  -- must: durable before the caller is answered; may: buffered, lost and counted when there is no room.
  case when t.event_type in ('device.readings_accepted', 'device.readings_refused') then 'may' else 'must' end as class
from (
  values
    ('auth.login_success', 'info', 'A user''s bearer token was accepted.'),
    ('auth.login_failure', 'warning', 'A request was turned away with 401; details.reason says why.'),
    ('auth.forbidden', 'warning', 'A known caller asked for what its role or tenant does not allow.'),
    ('auth.rate_limited', 'warning', 'An address was turned away because of too many failures.'),
    ('auth.token_refresh', 'info', 'A refresh token was exchanged for a new access token.'),
    ('device.authenticated', 'debug', 'A device''s token was accepted; refused ones are auth.login_failure.'),
    ('device.created', 'info', 'A device was added.'),
    ('device.updated', 'info', 'A device was changed.'),
    ('device.deleted', 'info', 'A device was removed.'),
    ('device.token_rotated', 'info', 'A device got a new API token; the old one stopped working.'),
    ('device.readings_accepted', 'debug', 'A request''s readings were stored; details holds the counts.'),
    ('device.readings_refused', 'warning', 'Some of a request''s readings were not stored; details says which and why.'),
    ('rule.created', 'info', 'An alert rule was added.'),
    ('rule.updated', 'info', 'An alert rule was changed.'),
    ('rule.deleted', 'info', 'An alert rule was removed.'),
    ('alert.opened', 'warning', 'A rule''s condition held and an alert was opened.'),
    ('alert.acknowledged', 'info', 'A person took the alert.'),
    ('alert.silenced', 'info', 'A person silenced the alert until a time.'),
    ('alert.escalated', 'warning', 'A step of the escalation policy came due.'),
    ('alert.closed', 'info', 'The condition ended, or a person or a rule change closed the alert.'),
    ('delivery.queued', 'info', 'An alert event became a notification job for a channel.'),
    ('delivery.suppressed', 'info', 'An alert event told nobody, or not this channel; details.reason says why.'),
    ('delivery.delivered', 'info', 'The receiver accepted the notification.'),
    ('delivery.retried', 'warning', 'An attempt failed and the notification will be tried again.'),
    ('delivery.lease_expired', 'warning', 'A worker vanished with the notification; whether it was sent is unknown.'),
    ('delivery.dead', 'error', 'The notification was given up.'),
    ('delivery.redriven', 'info', 'A person put a dead notification back in the queue.'),
    ('config.tenant_created', 'info', 'A tenant was added.'),
    ('config.channel_created', 'info', 'A notification channel was added.'),
    ('config.channel_updated', 'info', 'A notification channel was changed.'),
    ('config.channel_deleted', 'info', 'A notification channel was removed.'),
    ('config.route_created', 'info', 'A notification route was added.'),
    ('config.route_updated', 'info', 'A notification route was changed.'),
    ('config.route_deleted', 'info', 'A notification route was removed.'),
    ('config.policy_created', 'info', 'An escalation policy was added.'),
    ('config.policy_updated', 'info', 'An escalation policy was changed.'),
    ('config.policy_deleted', 'info', 'An escalation policy was removed.'),
    ('audit.gap', 'error', 'Events were lost before they reached this table; details holds count, process and time bounds.'),
    ('audit.quarantined', 'error', 'An event could not be stored as it was; details holds a safe rendering of it.'),
    ('audit.read', 'info', 'Someone read the audit trail; details holds the filter.'),
    ('system.started', 'info', 'A process of Pulse became ready.'),
    ('system.stopped', 'info', 'A process of Pulse stopped cleanly.'),
    ('system.service_up', 'info', 'The health monitor reached a service again.'),
    ('system.service_down', 'error', 'The health monitor could not reach a service.'),
    ('system.partition_created', 'info', 'A partition was made ahead of time.'),
    ('system.pruned', 'info', 'Rows past their retention were removed.')
) as t (event_type, severity, description);

comment on view audit.event_types is
  'The closed registry of audit events: what may stand in audit_log.event_type, its usual severity, what it tells, and whether it must be durable before the caller is answered or may be lost and counted.';
