"""Further connections to a test's clone, for tests of concurrent sessions."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import asyncpg

Connect = Callable[[], Awaitable[asyncpg.Connection]]


@asynccontextmanager
async def connections(url: str) -> AsyncIterator[Connect]:
    """Yield a function that opens one more connection; all are closed when the block ends."""
    async with AsyncExitStack() as opened:

        async def open_one() -> asyncpg.Connection:
            connection = await asyncpg.connect(url)
            opened.push_async_callback(connection.close)
            return connection

        yield open_one


async def is_blocked(conn: asyncpg.Connection, other: asyncpg.Connection) -> bool:
    """Return whether the other connection waits for a lock, asked on the first."""
    return bool(await conn.fetchval("select pg_blocking_pids($1) <> '{}'", other.get_server_pid()))
