-- Not security definer, so that it reads the caller's settings, including those of its role and database.
create function core.durability_fault() returns text
language sql stable
set search_path = pg_catalog, pg_temp
begin atomic
  select case
    when current_setting('fsync')::boolean is false then 'fsync is off'
    when current_setting('synchronous_commit') = 'off' then 'synchronous_commit is off'
  end;
end;

comment on function core.durability_fault() is
  'Return the reason for which a committed row could be lost in a crash of the server; null if there is none. Services '
  'refuse to start if there is one.';
