create function evaluator._transitions_since(p_tenant_id text, p_minute timestamptz) returns bigint
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return (
    select coalesce(2 * sum(c.openings), 0)
    from evaluator.opening_counts c
    where c.tenant_id = p_tenant_id and c.minute = p_minute);
end
$$;

comment on function evaluator._transitions_since(text, timestamptz) is
  'Return the transitions of a tenant in this minute: two for each opening, because the alert also closes.';
