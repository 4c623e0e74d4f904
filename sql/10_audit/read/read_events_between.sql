create function audit.read_events_between(
  p_previous text,
  p_snapshot text,
  p_first_segment date,
  p_last_segment date,
  p_from timestamptz default null,
  p_to timestamptz default null,
  p_tenant_id text default null,
  p_event_id uuid default null
) returns table (xid bigint, segment date, place bigint, event text)
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off
-- The text of times and numbers depends on these settings.
set timezone = 'UTC'
set extra_float_digits = 1
as $$
begin
  perform audit._require_utf8();
  return query
    select r.xid::text::bigint, r.segment, r.place, r.event
    from (
      select
        l.xid,
        audit._segment(l.timestamp) as segment,
        row_number() over (
          partition by l.xid, audit._segment(l.timestamp)
          order by l.timestamp, l.tenant_id collate "C", l.event_id
        ) - 1 as place,
        case
          when l.timestamp >= coalesce(p_from, '-infinity')
            and l.timestamp < coalesce(p_to, 'infinity')
            and (p_tenant_id is null or l.tenant_id = p_tenant_id)
            and (p_event_id is null or l.event_id = p_event_id)
          then audit._event_json(l)
        end as event
      from audit._rows_between(p_previous::pg_snapshot, p_snapshot::pg_snapshot) l
      -- Written so that no index on timestamp fits. The index on xid is the right one, whatever the statistics say.
      where audit._segment(l.timestamp) between p_first_segment and p_last_segment
    ) r
    where r.event is not null
    order by r.xid, r.segment, r.place;
end
$$;

comment on function audit.read_events_between(text, text, date, date, timestamptz, timestamptz, text, uuid) is
  'Return, as JSON, the events that match the filter among the rows that the second snapshot sees and the first does '
  'not. place counts all rows of the same transaction and month in sealed order.';
