-- Every writer of a channel passes this check: the API, a seed and psql. The API checks the same first with better messages,
-- and only the API can check members that it has sealed.
create function delivery._check_config(p_kind text, p_config jsonb) returns void
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_required constant text[] := delivery._required_members(p_kind);
  v_optional constant text[] := array['url'] || case when 'secret' = any (v_required) then array['previous_secrets'] end;
  v_url constant text := '^(https://[^/?#@[:space:]]+|http://(127\.\d+\.\d+\.\d+|localhost|\[::1\])(:\d+)?)([/?][!-~]*)?$';
  v_secret constant text := '^whsec_[A-Za-z0-9+/]{32,86}={0,2}$';
  v_fault text;
begin
  select case
      when e.key <> all (v_required || v_optional) then format('%s channels have no %s', p_kind, e.key)
      when jsonb_typeof(i.item) <> 'string' then e.key || ' must be text'
      when delivery._is_sealed(e.value #>> '{}') then null
      -- Plain http is allowed on this machine only. The destination is checked again when the connection is made.
      when e.key = 'url' and (i.item #>> '{}') !~ v_url then 'url must be an https address without user name'
      when e.key in ('secret', 'previous_secrets') and (i.item #>> '{}') !~ v_secret
        then e.key || ' must be whsec_ and the base64 of 24 to 64 bytes'
      when e.key = 'routing_key' and (i.item #>> '{}') !~ '^[A-Za-z0-9]{32}$'
        then 'routing_key must be 32 letters and digits'
    end
  into v_fault
  from jsonb_each(p_config) e
  left join lateral jsonb_array_elements(
    case when e.key = 'previous_secrets' and jsonb_typeof(e.value) = 'array' then e.value else jsonb_build_array(e.value) end
  ) as i (item) on true
  order by 1 nulls last
  limit 1;
  v_fault := coalesce(v_fault, (
    select format('%s channels need %s', p_kind, r.key)
    from unnest(v_required) as r (key)
    where not p_config ? r.key
    limit 1));
  if v_fault is not null then
    raise exception using errcode = 'PU422', message = v_fault;
  end if;
end
$$;

comment on function delivery._check_config(text, jsonb) is
  'Raise PU422 if a channel of this kind cannot work with this configuration.';
