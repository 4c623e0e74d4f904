create trigger audit_log_append_only
before update or delete on public.audit_log
for each row execute function audit._refuse_change();

comment on trigger audit_log_append_only on public.audit_log is 'Refuses UPDATE and DELETE. Every partition inherits it.';
