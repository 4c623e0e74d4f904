"""Rows that tests start from, made through the same functions the services call."""

from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import orjson

NOON = datetime(2026, 1, 5, 12, tzinfo=UTC)


async def tenant(conn: asyncpg.Connection, tenant_id: str = "acme") -> str:
    """Insert a tenant and return its id."""
    await conn.execute(
        "insert into public.tenants (tenant_id, name) values ($1, initcap($1)) on conflict do nothing",
        tenant_id,
    )
    return tenant_id


async def device(
    conn: asyncpg.Connection,
    device_id: str = "boiler-1",
    *,
    tenant_id: str = "acme",
    tags: tuple[str, ...] = (),
) -> str:
    """Insert a device of the tenant and return its id."""
    await tenant(conn, tenant_id)
    await conn.execute(
        "insert into public.devices (tenant_id, device_id, name, tags) values ($1, $2, $2, $3)",
        tenant_id,
        device_id,
        list(tags),
    )
    return device_id


async def rule(conn: asyncpg.Connection, *, tenant_id: str = "acme", **columns: Any) -> int:
    """Insert a rule, 'temperature > 80' unless columns differ, and return its id."""
    await tenant(conn, tenant_id)
    values = {
        "name": "too hot",
        "metric": "temperature",
        "operator": ">",
        "threshold": 80.0,
        **columns,
    }
    names = ", ".join(values)
    places = ", ".join(f"${number}" for number in range(2, len(values) + 2))
    query = f"insert into public.alert_rules (tenant_id, {names}) values ($1, {places}) returning rule_id"
    return int(await conn.fetchval(query, tenant_id, *values.values()))


async def channel(
    conn: asyncpg.Connection,
    name: str = "sink",
    *,
    tenant_id: str = "acme",
    kind: str = "webhook",
    **columns: Any,
) -> int:
    """Insert a channel and return its id."""
    await tenant(conn, tenant_id)
    config = columns.pop(
        "config",
        '{"url": "http://127.0.0.1:1/hook", "secret": "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz"}',
    )
    query = (
        "insert into public.notification_channels (tenant_id, name, kind, config, enabled)"
        " values ($1, $2, $3, $4::text::jsonb, $5) returning channel_id"
    )
    return int(await conn.fetchval(query, tenant_id, name, kind, config, columns.pop("enabled", True)))


async def route(
    conn: asyncpg.Connection,
    channel_id: int,
    *,
    tenant_id: str = "acme",
    **columns: Any,
) -> int:
    """Insert a route to the channel and return its id."""
    values = {"name": f"to {channel_id}", "channel_id": channel_id, **columns}
    names = ", ".join(values)
    places = ", ".join(f"${number}" for number in range(2, len(values) + 2))
    query = f"insert into public.notification_routes (tenant_id, {names}) values ($1, {places}) returning route_id"
    return int(await conn.fetchval(query, tenant_id, *values.values()))


async def readings(
    conn: asyncpg.Connection,
    *values: tuple[float, float] | tuple[float, float, str],
    tenant_id: str = "acme",
    metric: str = "temperature",
    trace_id: str | None = None,
) -> tuple[int, int, list[dict[str, Any]]]:
    """Send (seconds after NOON, value[, device_id]); return the accepted and duplicate counts and the refused."""
    rows = [(value[0], value[1], value[2] if len(value) == 3 else "boiler-1") for value in values]
    row = await conn.fetchrow(
        "select accepted, duplicates, refused::text from ingest.record_readings($1, $2, $3, $4, $5, $6)",
        tenant_id,
        [row[2] for row in rows],
        [metric] * len(rows),
        [NOON + timedelta(seconds=row[0]) for row in rows],
        [float(row[1]) for row in rows],
        trace_id,
    )
    return row["accepted"], row["duplicates"], orjson.loads(row["refused"])
