create function ingest.update_device(p_device_id text, p_patch jsonb) returns jsonb
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_tenant_id text := core.require_tenant();
  v_old public.devices;
  v_new public.devices;
  v_changes jsonb;
begin
  if p_patch ?| array['tags', 'enabled'] then
    -- Passes of the evaluator lock their lanes before rows, so the lane is locked first.
    perform evaluator._lock_lanes(v_tenant_id, array[core.shard_of(v_tenant_id, p_device_id)]);
  end if;
  select d.* into v_old
  from public.devices d
  where d.tenant_id = v_tenant_id and d.device_id = p_device_id
  for no key update;
  if not found then
    raise exception using errcode = 'PU404', message = format('there is no device %s', p_device_id);
  end if;
  v_new := jsonb_populate_record(v_old, p_patch - array['tenant_id', 'device_id', 'token_hash', 'created_at', 'updated_at']);
  v_changes := core._changes(to_jsonb(v_old), to_jsonb(v_new));
  if v_changes <> '{}' then
    if v_old.enabled and not v_new.enabled then
      perform evaluator._forget_device(v_tenant_id, p_device_id, 'device disabled');
    elsif v_changes ? 'tags' then
      perform ingest._leave_groups(v_tenant_id, p_device_id, array(
        select unnest(v_old.tags) except select unnest(v_new.tags)));
    end if;
    update public.devices d
    set name = v_new.name, tags = v_new.tags, is_gateway = v_new.is_gateway, enabled = v_new.enabled,
      updated_at = clock_timestamp()
    where d.tenant_id = v_tenant_id and d.device_id = p_device_id;
    if v_old.enabled and v_new.enabled then
      perform evaluator._judge_last(r, null, p_device_id)
      from public.alert_rules r
      where r.tenant_id = v_tenant_id and r.enabled and r.tag = any (v_new.tags) and not r.tag = any (v_old.tags);
    end if;
  end if;
  return (select to_jsonb(d) from api.devices d where d.device_id = p_device_id);
end
$$;

comment on function ingest.update_device(text, jsonb) is
  'Change the members that p_patch names and return the device. Disabling closes its alerts, removing a tag closes the alerts '
  'of that group''s rules, and the rules of a new tag judge its last values. Raise PU404 for an unknown device.';
