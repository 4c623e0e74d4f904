"""What a query really read, from EXPLAIN ANALYZE."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import asyncpg
import orjson


async def rows_read(conn: asyncpg.Connection, query: str) -> Counter[str]:
    """Rows that a query's scans touched, those it threw away included, by table; partitions count by themselves."""
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
