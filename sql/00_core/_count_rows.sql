create function core._count_rows() returns trigger
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_limit_name constant text := tg_argv[0];
  v_rows record;
begin
  case tg_op
    when 'INSERT' then
      for v_rows in select r.tenant_id, count(*) as number from new_rows r group by r.tenant_id order by r.tenant_id loop
        perform core._refuse_above_limit(
          v_rows.tenant_id, v_limit_name, core._count_usage(v_rows.tenant_id, v_limit_name, v_rows.number));
      end loop;
    when 'DELETE' then
      for v_rows in select r.tenant_id, count(*) as number from old_rows r group by r.tenant_id order by r.tenant_id loop
        -- Rows that were added while the triggers were disabled are not counted.
        update public.tenant_usage u
        set used = greatest(u.used - v_rows.number, 0)
        where u.tenant_id = v_rows.tenant_id and u.limit_name = v_limit_name;
      end loop;
    else
      delete from public.tenant_usage u where u.limit_name = v_limit_name;
  end case;
  return null;
end
$$;

comment on function core._count_rows() is
  'Count the rows that a statement added or removed against the limit named by the trigger''s argument. Raises PULIM '
  'above the limit.';
