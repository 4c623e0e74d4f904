"""Measures of a query's real reads, from EXPLAIN ANALYZE."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import asyncpg
import orjson


async def rows_read(conn: asyncpg.Connection, query: str) -> Counter[str]:
    """Return the rows that a query's scans touched by table, discarded rows included; partitions count separately."""
    found: Counter[str] = Counter()
    for node in _nodes(await _explain(conn, query)):
        if "Relation Name" in node:
            thrown_away = node.get("Rows Removed by Filter", 0) + node.get("Rows Removed by Index Recheck", 0)
            found[node["Relation Name"]] += round((node["Actual Rows"] + thrown_away) * node["Actual Loops"])
    return found


async def _explain(conn: asyncpg.Connection, query: str) -> dict[str, Any]:
    text = await conn.fetchval(f"explain (analyze, timing off, format json) {query}")
    plan: dict[str, Any] = orjson.loads(text)[0]["Plan"]
    return plan


def _nodes(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield node
    for child in node.get("Plans", []):
        yield from _nodes(child)


async def rows_touched(conn: asyncpg.Connection, query: str) -> dict[str, int]:
    """Return the rows that a query and its functions fetched by table; partitions count as their parent."""
    counters = (
        "select split_part(relname, '_2', 1) as name, sum(coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0))::int"
        " as rows from pg_stat_xact_user_tables group by 1"
    )
    async with conn.transaction():
        before = {row["name"]: row["rows"] for row in await conn.fetch(counters)}
        await conn.fetch(query)
        after = {row["name"]: row["rows"] for row in await conn.fetch(counters)}
    return {name: rows - before.get(name, 0) for name, rows in after.items()}


async def entries_read(conn: asyncpg.Connection, query: str) -> Counter[str]:
    """Return the rows and index entries that a query's scans read by table; partitions count as their parent.

    Reads of its functions and index-only scans are included.
    """
    counters = """
      select coalesce(p.relname, t.relname)::text as name,
             sum(pg_stat_get_xact_tuples_returned(c.oid))::bigint as entries
        from pg_class c
        left join pg_index x on x.indexrelid = c.oid
        join pg_class t on t.oid = coalesce(x.indrelid, c.oid)
        left join pg_inherits i on i.inhrelid = t.oid
        left join pg_class p on p.oid = i.inhparent
       where c.relkind in ('r', 'i') and t.relnamespace <> 'pg_catalog'::regnamespace
         and t.relnamespace <> 'pg_toast'::regnamespace
       group by 1"""
    async with conn.transaction():
        before = {row["name"]: row["entries"] for row in await conn.fetch(counters)}
        await conn.fetch(query)
        after = {row["name"]: row["entries"] for row in await conn.fetch(counters)}
    return +Counter({name: entries - before.get(name, 0) for name, entries in after.items()})
