"""The authentication events of the audit trail."""

from typing import Any

import asyncpg
import orjson

from tests.support.wait import until


async def events(conn: asyncpg.Connection, count: int) -> list[dict[str, Any]]:
    """Return the auth events as soon as the given number is stored."""
    query = (
        "select event_type, tenant_id, severity, actor_type, actor_id, actor_name, host(ip_address) as ip, trace_id,"
        " source_service, duration_ms, message, details::text as details from audit_log where category = 'auth'"
        " order by timestamp, event_id"
    )

    async def enough() -> list[dict[str, Any]]:
        rows = [dict(row) | {"details": orjson.loads(row["details"])} for row in await conn.fetch(query)]
        return rows if len(rows) >= count else []

    found: list[dict[str, Any]] = await until(enough)
    assert len(found) == count
    return found
