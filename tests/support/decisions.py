"""Dispatcher passes, and changes made by a user of the tenant."""

from typing import Any

import asyncpg


async def dispatch(conn: asyncpg.Connection, limit: int = 1000) -> int:
    """Run passes until one is idle; return the number of alert events they decided."""
    total = 0
    while events := await conn.fetchval("select events from dispatcher.dispatch($1)", limit):
        total += events
    return total


async def act(conn: asyncpg.Connection, query: str, *arguments: Any) -> None:
    """Run a statement as a user of the tenant."""
    async with conn.transaction():
        await conn.execute("select core.act('acme', 'user', 'ann', 'Ann', '', '', 'ui_iot')")
        await conn.execute(query, *arguments)
