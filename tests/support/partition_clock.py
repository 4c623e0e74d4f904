"""The clock that decides which partitions are due."""

import asyncpg


async def set_now(conn: asyncpg.Connection, moment: str) -> None:
    """Stop the clock that decides which partitions are due."""
    await conn.execute(
        f"create or replace function core.now() returns timestamptz language sql stable return '{moment}'::timestamptz"
    )
