create trigger audit_log_epoch
before insert on public.audit_log
for each statement execute function audit._name_epoch();

comment on trigger audit_log_epoch on public.audit_log is
  'Gives each row the epoch of the server that wrote it. Rows loaded from a dump keep theirs.';
