create function audit.lease_seal(p_holder text, p_lease_seconds double precision) returns bigint
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_now constant timestamptz := clock_timestamp();
  v_sealer audit.sealer;
  v_is_held boolean;
begin
  -- A lease must not exclude other sealers for longer than a person needs to notice.
  if p_lease_seconds > 60 then
    raise exception using errcode = 'PU422', message = 'the right to seal can be leased for at most 60 seconds';
  end if;
  select s.* into v_sealer from audit.sealer s;
  -- A lease that seems longer than that was taken before the clock went back.
  v_is_held := v_sealer.lease_until > v_now and v_sealer.lease_until < v_now + interval '2 minutes';
  if v_is_held and v_sealer.holder <> p_holder then
    return null;
  elsif v_is_held and v_sealer.lease_until > v_now + make_interval(secs => p_lease_seconds / 2) then
    return v_sealer.epoch;
  end if;
  update audit.sealer s
  set
    epoch = case when v_is_held then s.epoch else s.epoch + 1 end,
    holder = p_holder,
    lease_until = v_now + make_interval(secs => p_lease_seconds)
  -- A faster sealer has changed the row meanwhile.
  where s.epoch = v_sealer.epoch and s.lease_until = v_sealer.lease_until
  returning s.epoch into v_sealer.epoch;
  return case when found then v_sealer.epoch end;
end
$$;

comment on function audit.lease_seal(text, double precision) is
  'Take or keep the right to seal. Return its epoch, null while another process holds it. Writes only if half of the '
  'lease is over. Raises PU422 for more than 60 seconds.';
