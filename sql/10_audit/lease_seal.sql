create function audit.lease_seal(p_holder text, p_lease_seconds double precision) returns bigint
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_now timestamptz := clock_timestamp();
  v_sealer audit.sealer;
begin
  -- Nobody shuts other sealers out for longer than a person would take to notice.
  if p_lease_seconds > 60 then
    raise exception using errcode = 'PU422', message = 'the right to seal is lent for 60 seconds at most';
  end if;
  select s.* into v_sealer from audit.sealer s;
  if v_sealer.lease_until > v_now then
    if v_sealer.holder <> p_holder then
      return null;
    elsif v_sealer.lease_until > v_now + make_interval(secs => p_lease_seconds / 2) then
      return v_sealer.epoch;
    end if;
  end if;
  update audit.sealer s
  set
    epoch = case when s.holder = p_holder and s.lease_until > v_now then s.epoch else s.epoch + 1 end,
    holder = p_holder,
    lease_until = v_now + make_interval(secs => p_lease_seconds)
  where s.lease_until <= v_now or s.holder = p_holder
  returning s.epoch into v_sealer.epoch;
  return case when found then v_sealer.epoch end;
end
$$;

comment on function audit.lease_seal(text, double precision) is
  'Take or keep the right to seal; gives its epoch, null while another process holds it. Writes only when half of the '
  'lease is over. Raises PU422 for more than 60 seconds.';
