create view audit.legal_holds as
select
  h.hold_id,
  h.starts_at,
  h.ends_at,
  h.reason,
  h.placed_by,
  h.placed_at,
  h.released_by,
  h.released_at,
  h.release_reason,
  array(
    select distinct t.segment
    from audit.tombstones t
    where audit._touches_segment(t.segment, h.starts_at, h.ends_at)
    order by t.segment
  ) as dropped_months
from audit.holds h;

comment on view audit.legal_holds is
  'Legal holds, in force and released, each with the months of its range that were dropped before it or after its '
  'release.';
