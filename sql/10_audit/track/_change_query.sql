-- Builds one query for every table and kind of statement from the present catalog: a column that came after the table
-- was tracked is in it, a dropped one is not, and a redacted column that was renamed stops the change instead of showing
-- its values.
--
-- Values are compared as text under collation "C", because json has no equality and a case-insensitive collation would
-- hide a change. Rows pair by primary key and tenant: a new key is a deletion and a creation, and a row that moves
-- between tenants shows each tenant its own side. Long values are cut, so that 10,000 events fit into one array.
create function audit._change_query(
  p_table regclass, p_old text, p_new text, p_redacted_columns text[], p_only_columns text[]
) returns text
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_keys constant text[] := audit._key_columns(p_table);
  v_columns text[];
  v_missing text;
  v_values text;
  v_tenant_id text := quote_literal('system');
  v_entity_id text;
  v_name text := 'null';
  v_old_key text;
  v_new_key text;
begin
  select
    array_agg(a.attname::text),
    string_agg(
      format('(%L, %s, %s, %s)', a.attname, format(f.value, 'o', a.attname), format(f.value, 'n', a.attname),
        case
          when a.attname in ('created_at', 'updated_at') then 'false'
          else format('o.%1$I::text collate "C" is distinct from n.%1$I::text collate "C"', a.attname)
        end),
      ', ' order by a.attnum)
      filter (where a.attname <> 'tenant_id' and a.attname = any (coalesce(p_only_columns, array[a.attname::text])))
  into v_columns, v_values
  from pg_attribute a
  join pg_type t on t.oid = a.atttypid
  cross join lateral (
    select case
      when a.attname = any (p_redacted_columns)
        then $value$case when num_nonnulls(%s.%I) = 1 then '"[redacted]"'::jsonb end$value$
      -- json may hold values that jsonb refuses.
      when 'json'::regtype in (t.oid, t.typelem, t.typbasetype) then 'to_jsonb(%s.%I::text)'
      else 'to_jsonb(%s.%I)'
    end
  ) as f (value)
  -- A virtual column is not stored in rows.
  where a.attrelid = p_table and a.attnum > 0 and not a.attisdropped and a.attgenerated <> 'v';

  select string_agg(quote_ident(w.name), ', ') into v_missing
  from unnest(p_redacted_columns || p_only_columns) as w (name)
  where w.name <> all (v_columns);
  if v_missing is not null then
    raise exception using
      errcode = 'PU422',
      message = format('%s has no column %s', p_table, v_missing),
      hint = 'If it was renamed or dropped, call audit.track(…) again with the present columns.';
  end if;

  select
    format('left(concat_ws(''/'', %s), 256)', string_agg(format('coalesce(n.%1$I, o.%1$I)::text', k.name), ', ' order by k.place)),
    string_agg(format('o.%I::text collate "C"', k.name), ', ' order by k.place),
    string_agg(format('n.%I::text collate "C"', k.name), ', ' order by k.place)
  into v_entity_id, v_old_key, v_new_key
  from unnest(v_keys) with ordinality as k (name, place);
  if 'tenant_id' = any (v_columns) then
    v_tenant_id := 'coalesce(n.tenant_id::text, o.tenant_id::text, ''system'')';
    v_old_key := v_old_key || ', o.tenant_id::text collate "C"';
    v_new_key := v_new_key || ', n.tenant_id::text collate "C"';
  end if;
  if 'name' = any (v_columns) and 'name' <> all (p_redacted_columns) then
    v_name := 'left(coalesce(n.name, o.name)::text, 256)';
  end if;

  return format(
    $query$
      select array_agg(audit.event(
        p_tenant_id => e.tenant_id,
        p_event_type => case e.act when 'created' then $2 when 'changed' then $3 else $4 end,
        p_entity_type => $1,
        p_entity_id => e.entity_id,
        p_entity_name => e.name,
        p_message =>
          concat(replace($1, '_', ' '), ' ', e.entity_id, ' "' || e.name || '"', ' ', e.act, ': ' || e.columns),
        p_details => audit._shortened(jsonb_build_object(
          case e.act when 'created' then 'new' when 'changed' then 'changes' else 'old' end, e.content), 65536)))
      from (
        select %1$s as tenant_id, %2$s as entity_id, %3$s as name, a.act, c.columns, c.content,
          row_number() over () as number
        from %4$s o
        full join %5$s n on array[%6$s] = array[%7$s]
        cross join lateral (
          select case when o.%8$I::text is null then 'created' when n.%8$I::text is null then 'deleted' else 'changed' end
        ) as a (act)
        cross join lateral (
          select
            string_agg(v.name, ', ') filter (where a.act = 'changed'),
            jsonb_object_agg(v.name,
              case a.act
                when 'created' then audit._shortened(v.new, 8192)
                when 'deleted' then audit._shortened(v.old, 8192)
                else jsonb_build_array(audit._shortened(v.old, 8192), audit._shortened(v.new, 8192))
              end)
          from (values %9$s) as v (name, old, new, differs)
          where v.differs or a.act <> 'changed'
        ) as c (columns, content)
        where c.content is not null
      ) e
      group by (e.number - 1) / 10000
    $query$,
    v_tenant_id, v_entity_id, v_name, p_old, p_new, v_old_key, v_new_key, v_keys[1], v_values
  );
end
$$;

comment on function audit._change_query(regclass, text, text, text[], text[]) is
  'Return a query that makes audit events of the rows in p_old and p_new, in arrays of at most 10,000. Its parameters: '
  'entity type, the event types of created, changed and deleted rows, and the values that p_old and p_new need. Raises '
  'PU422 if a column is missing.';
