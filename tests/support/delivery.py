"""Notification jobs for tests, and the delivery functions as a worker calls them."""

from collections.abc import Sequence
from typing import Any

import asyncpg
import orjson

from tests.support import seed
from tests.support.notifications import payload


async def alert(conn: asyncpg.Connection, *, tenant_id: str = "acme") -> int:
    """Insert an open alert and return its id."""
    await seed.tenant(conn, tenant_id)
    return int(
        await conn.fetchval(
            "insert into alerts (tenant_id, fingerprint, rule_name, severity, message, opened_at, trace_id)"
            " values ($1, 'test:' || gen_random_uuid(), 'too hot', 'critical', 'hot', now(), repeat('a', 32))"
            " returning alert_id",
            tenant_id,
        )
    )


async def job(
    conn: asyncpg.Connection,
    channel_id: int,
    *,
    alert_id: int | None = None,
    kind: str = "opened",
    tenant_id: str = "acme",
    **columns: Any,
) -> int:
    """Insert a pending job as the dispatcher makes it, for a new alert or the given one; return its id."""
    alert_id = alert_id or await alert(conn, tenant_id=tenant_id)
    event_id = await conn.fetchval(
        "insert into alert_events"
        " (tenant_id, alert_id, kind, occurred_at, dispatched_at, trace_id, channel_id, step_number)"
        " values ($1, $2, $3, now(), now(), repeat('a', 32), $4, $5) returning event_id",
        tenant_id,
        alert_id,
        kind,
        *((channel_id, 1) if kind == "escalated" else (None, None)),
    )
    fingerprint = await conn.fetchval("select fingerprint from alerts where alert_id = $1", alert_id)
    about = {"alert_id": alert_id, "fingerprint": fingerprint}
    body = payload(kind, alert=about, tenant_id=tenant_id, event_id=event_id)
    values = {
        "tenant_id": tenant_id,
        "event_id": event_id,
        "alert_id": alert_id,
        "channel_id": channel_id,
        "kind": kind,
        "trace_id": body["trace_id"],
        **columns,
    }
    places = ", ".join(f"${number}" for number in range(2, len(values) + 2))
    query = (
        f"insert into notification_jobs (payload, {', '.join(values)}) values ($1::text::jsonb, {places})"
        " returning job_id"
    )
    return int(await conn.fetchval(query, orjson.dumps(body).decode(), *values.values()))


async def claim(
    conn: asyncpg.Connection, limit: int = 100, *, worker: str = "w1", channel_limit: int = 100
) -> list[asyncpg.Record]:
    """Lease due jobs for 30 s."""
    rows: list[asyncpg.Record] = await conn.fetch(
        "select * from delivery.claim($1, $2, 30, $3)", worker, limit, channel_limit
    )
    return rows


def ids(rows: Sequence[asyncpg.Record]) -> list[int]:
    """Return the job ids of rows."""
    return [row["job_id"] for row in rows]


async def finish(
    conn: asyncpg.Connection,
    rows: Sequence[asyncpg.Record],
    outcome: str = "delivered",
    *,
    status: int | None = None,
    error: str | None = None,
    retry_after: float | None = None,
    base: float = 5,
) -> dict[int, str]:
    """Record one outcome for all claimed rows; return the new state of those that were still leased."""
    count = len(rows)
    settled = await conn.fetch(
        "select * from delivery.finish($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
        [row["tenant_id"] for row in rows],
        ids(rows),
        [row["lease_epoch"] for row in rows],
        [outcome] * count,
        [status] * count,
        [error] * count,
        [None] * count,
        [12.5] * count,
        [retry_after] * count,
        float(base),
    )
    return {row["job_id"]: row["state"] for row in settled}


async def make_due(conn: asyncpg.Connection) -> None:
    """End the waiting time of every pending job and every pause."""
    await conn.execute("update notification_jobs set run_at = now() - interval '1 second' where state = 'pending'")
    await conn.execute("update delivery.lanes set paused_until = now() - interval '1 second'")


async def expire_leases(conn: asyncpg.Connection) -> None:
    """Expire every lease."""
    await conn.execute("update notification_jobs set lease_until = now() - interval '1 second' where state = 'leased'")


async def states(conn: asyncpg.Connection) -> dict[int, str]:
    """State of every job."""
    rows = await conn.fetch("select job_id, state from notification_jobs order by job_id")
    return {row["job_id"]: row["state"] for row in rows}
