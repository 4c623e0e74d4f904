"""A lock on audit_log that blocks every writer."""

import asyncpg

NOWHERE = "/dev/null/spool"


WAITING = (
    "select count(*) from pg_locks where not granted"
    " and database = (select oid from pg_database where datname = current_database())"
)


class TableLock:
    """A lock that blocks every write to audit_log."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self._connection = connection

    async def hold(self) -> None:
        """Take the lock."""
        await self._connection.execute("begin; lock table audit_log in access exclusive mode")

    async def release(self) -> None:
        """Release the lock."""
        await self._connection.execute("rollback")
