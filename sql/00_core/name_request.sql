-- pg_stat_activity and %a of log_line_prefix then show the request of a slow or blocked statement. The setting is local
-- to the transaction, because the next transaction of a pooled connection serves another request. Text behind the first
-- space comes from an earlier call and is replaced.
create function core.name_request(p_trace_id text) returns text
language sql volatile
return set_config(
  'application_name',
  rtrim(split_part(current_setting('application_name'), ' ', 1) || ' ' || coalesce(p_trace_id, '')),
  true);

comment on function core.name_request(text) is
  'Append the trace id to application_name until the end of the transaction: pulse-ui_iot '
  '0190163d86947beaaea5966c26f8ad91.';
