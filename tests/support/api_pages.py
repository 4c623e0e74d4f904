"""Rows for every list of the API, and a client that reads all pages of a list."""

from typing import Any

import asyncpg

from tests.support import seed
from tests.support.api_client import Api


async def fill(conn: asyncpg.Connection, tenant_id: str, count: int) -> None:
    """Insert the given number of rows for each list."""
    await seed.tenant(conn, tenant_id)
    await conn.execute(
        "insert into devices (tenant_id, device_id, name) select $1, 'd' || n, $1 || n from generate_series(1, $2) n",
        tenant_id,
        count,
    )
    await conn.execute(
        "insert into api_keys (tenant_id, name, role, scopes, key_hash, expires_at)"
        " select $1, $1 || n, 'viewer', '{devices:read}', sha256(n::text::bytea), now() + interval '1 day'"
        " from generate_series(1, $2) n",
        tenant_id,
        count,
    )
    await conn.execute(
        "insert into revocations (tenant_id, subject, reason, expires_at)"
        " select $1, $1 || n, 'r', now() + interval '1 day' from generate_series(1, $2) n",
        tenant_id,
        count,
    )
    channel = await seed.channel(conn, f"{tenant_id}-0", tenant_id=tenant_id)
    for number in range(1, count):
        await seed.channel(conn, f"{tenant_id}-{number}", tenant_id=tenant_id)
    for number in range(count):
        await seed.rule(conn, tenant_id=tenant_id, name=f"{tenant_id}-{number}")
        await seed.route(conn, channel, tenant_id=tenant_id)
    await conn.execute(
        "insert into escalation_policies (tenant_id, name) select $1, $1 || n from generate_series(1, $2) n",
        tenant_id,
        count,
    )
    await conn.execute(
        "insert into alerts (tenant_id, fingerprint, rule_name, severity, message, opened_at)"
        " select $1, 'f' || n, $1, 'info', $1, now() from generate_series(1, $2) n",
        tenant_id,
        count,
    )
    await conn.execute(
        "with event as (insert into alert_events (tenant_id, alert_id, kind, occurred_at)"
        " select tenant_id, alert_id, 'opened', now() from alerts where tenant_id = $1 returning *)"
        " insert into notification_jobs (tenant_id, event_id, alert_id, channel_id, kind, payload)"
        " select tenant_id, event_id, alert_id, $2, 'opened', '{}' from event",
        tenant_id,
        channel,
    )
    await conn.execute(
        # All at one instant: the order must not depend on the time alone.
        "insert into audit_log (tenant_id, timestamp, event_id, event_type, category, action, message, source_service)"
        " select $1, '2026-01-05T12:00Z', gen_random_uuid(), 'system.started', 'system', 'started', $1, 'x'"
        " from generate_series(1, $2)",
        tenant_id,
        count,
    )


async def read_all(api: Api, name: str, query: str, **rest: Any) -> list[dict[str, Any]]:
    """Return every page of a list in order."""
    items: list[dict[str, Any]] = []
    cursor = None
    for _ in range(100):
        path = f"/api/v1/{name}?{query}" + (f"&cursor={cursor}" if cursor else "")
        response = await api.call("GET", path, **rest)
        assert response.status_code == 200, response.text
        items += response.json()["items"]
        cursor = response.json()["next_cursor"]
        if cursor is None:
            return items
    raise AssertionError("the pages never end")
