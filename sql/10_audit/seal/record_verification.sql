create function audit.record_verification(p_scope text, p_row_count bigint, p_fault_count bigint, p_message text)
returns void
language sql volatile security definer
set search_path = pg_catalog, pg_temp
begin atomic
  insert into audit.verifications (scope, verified_at, row_count, fault_count, message)
  values (p_scope, core.now(), p_row_count, p_fault_count, p_message)
  on conflict (scope) do update
  set
    verified_at = excluded.verified_at,
    row_count = excluded.row_count,
    fault_count = excluded.fault_count,
    message = excluded.message;
end;

comment on function audit.record_verification(text, bigint, bigint, text) is
  'Record the result of a verification by the ops worker: of the log''s last day (day), of the whole log (all), or of '
  'the SQL layer (layer).';
