create function ops._set_guards(p_table text, p_modes jsonb) returns jsonb
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_guard record;
  v_before jsonb := '{}';
begin
  for v_guard in
    select t.tgname as name, t.tgenabled as mode, coalesce(p_modes ->> t.tgname, 'D') as wanted
    from pg_trigger t
    where t.tgrelid = format('public.%I', p_table)::regclass
      and not t.tgisinternal
  loop
    v_before := v_before || jsonb_build_object(v_guard.name, v_guard.mode);
    if v_guard.wanted <> v_guard.mode then
      execute format(
        'alter table public.%I %s trigger %I',
        p_table,
        case v_guard.wanted
          when 'D' then 'disable'
          when 'A' then 'enable always'
          when 'R' then 'enable replica'
          else 'enable'
        end,
        v_guard.name
      );
    end if;
  end loop;
  return v_before;
end
$$;

comment on function ops._set_guards(text, jsonb) is
  'Set the triggers of a table to the modes {name: tgenabled} and disable the others. Return the previous modes.';
