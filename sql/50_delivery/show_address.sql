create trigger show_address before insert or update of config, shown_url on public.notification_channels
for each row execute function delivery._show_address();
comment on trigger show_address on public.notification_channels is 'Shows scheme, host and fingerprint of the address only.';
