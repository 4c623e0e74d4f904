-- An odd last hash of a level moves up unchanged, which equals the split of RFC 6962.
create function audit._segment_root(p_segment date, p_after_block bigint) returns bytea
language sql stable
set search_path = pg_catalog, pg_temp
begin atomic
  with recursive node (level, place, hash) as (
    select 0, row_number() over (order by b.block_no) - 1, b.leaf_hash
    from audit.blocks b
    where b.segment = p_segment and b.block_no > p_after_block
    union all
    select
      pair.level + 1,
      pair.place / 2,
      case when pair.next is null then pair.hash else sha256('\x01'::bytea || pair.hash || pair.next) end
    from (
      select n.*, lead(n.hash) over (order by n.place) as next, count(*) over () as width
      from node n
    ) pair
    where pair.place % 2 = 0 and pair.width > 1
  )
  select n.hash from node n order by n.level desc limit 1;
end;

comment on function audit._segment_root(date, bigint) is
  'Return the RFC 6962 root over the leaf hashes of a month''s blocks after p_after_block; null if there are none.';
