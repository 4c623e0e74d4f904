-- pg_stat_activity and %a of log_line_prefix then tell which request a slow or blocked statement belongs to. Transaction-local,
-- for a pooled connection serves another request next; what stood behind the first space is an earlier call's.
create function core.name_request(p_trace_id text) returns text
language sql volatile
return set_config(
  'application_name',
  rtrim(split_part(current_setting('application_name'), ' ', 1) || ' ' || coalesce(p_trace_id, '')),
  true);

comment on function core.name_request(text) is
  'Put the trace id behind the application_name until the end of the transaction: pulse-ui_iot 0190163d86947beaaea5966c26f8ad91.';
