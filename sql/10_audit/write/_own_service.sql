create function audit._own_service() returns text
language sql stable parallel safe
return case session_user
  when 'pulse_ui' then 'ui_iot'
  when 'pulse_evaluator' then 'evaluator_iot'
  when 'pulse_dispatcher' then 'dispatcher'
  when 'pulse_delivery' then 'delivery_worker'
end;

comment on function audit._own_service() is
  'Return the service whose role logged in; null for every other login. A session cannot change it, unlike its '
  'settings.';
