-- An after trigger, because a before trigger would keep COPY from inserting many rows at once.
create trigger log_source
after insert on public.audit_log
for each row
when (current_user = 'pulse_ui' and audit.is_foreign(new.source_service, new.category, new.action))
execute function audit._refuse_foreign();

comment on trigger log_source on public.audit_log is
  'Refuses events of other services from the login of the HTTP API. Functions may write them.';
