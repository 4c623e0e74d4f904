create function ops._report_pruned(p_removed jsonb, p_message text, p_details jsonb default '{}')
returns table (what text, removed bigint)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
    select entry.key, entry.value::bigint
    from jsonb_each_text(p_removed) entry
    where entry.value <> '0'
    order by entry.key;
  if found then
    perform ops._audit(
      p_event_type => 'system.pruned',
      p_message => p_message,
      p_details => jsonb_build_object('removed', p_removed) || p_details
    );
  end if;
end
$$;

comment on function ops._report_pruned(jsonb, text, jsonb) is
  'Return the counts of {table: rows removed} that are not 0. If there are any, write one audit event with all counts.';
