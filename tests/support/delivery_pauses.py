"""Channel pauses and redrives as a user of the tenant makes and reads them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import orjson


async def acting(conn: asyncpg.Connection, query: str, *arguments: Any) -> Any:
    """Call a function as a user of the tenant and return its JSON."""
    async with conn.transaction():
        await conn.execute("select core.act('acme', 'user', 'ann', 'Ann', '', '', 'ui_iot')")
        return orjson.loads(await conn.fetchval(query, *arguments))


async def shown(conn: asyncpg.Connection, view: str) -> asyncpg.Record:
    """Return the one row of a view, as the tenant sees it."""
    async with conn.transaction():
        await conn.execute("select set_config('pulse.tenant_id', 'acme', true)")
        (row,) = await conn.fetch(f"select * from api.{view} order by 1 desc limit 1")
        return row


@asynccontextmanager
async def listening(conn: asyncpg.Connection) -> AsyncIterator[list[str]]:
    """Yield the notifications on pulse_delivery that reached conn; a round trip flushes those before it."""
    heard: list[str] = []
    await conn.add_listener("pulse_delivery", lambda *arguments: heard.append(str(arguments[2])))
    yield heard
    await conn.execute("select 1")
    await conn.reset()


async def redrive(conn: asyncpg.Connection, number: int, *, tenant_id: str = "acme") -> None:
    """Put a job back in the queue as a user of the tenant does."""
    async with conn.transaction():
        await conn.execute(
            "select set_config('pulse.tenant_id', $1, true), set_config('pulse.actor_type', 'user', true),"
            " set_config('pulse.actor_id', 'ann', true)",
            tenant_id,
        )
        await conn.execute("select delivery.redrive($1)", number)
