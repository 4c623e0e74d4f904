-- Not security definer: the settings are those of the session that asks, its role's and its database's included.
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
  'Why a committed row could be lost when the server crashes; null when it could not. Services refuse to start then.';
