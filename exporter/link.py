"""The one connection of the exporter, with prepared statements that are kept from pass to pass."""

import asyncio
import logging
from itertools import count
from typing import Any

import asyncpg

from services.shared.db import UNAVAILABLE, Connection, connector_for
from services.shared.settings import ExporterSettings

log = logging.getLogger(__name__)


class Link:
    """Runs the statements of passes, one pass at a time.

    Every method raises an exception of UNAVAILABLE if the connection is lost, and asyncpg.PostgresError if the server
    refuses. Unless a savepoint restores the transaction, call drop() afterwards.
    """

    def __init__(self, settings: ExporterSettings) -> None:
        # Statements are kept here, because asyncpg's cache would raise for a view that was replaced meanwhile.
        self._connector = connector_for(settings, settings.database_url, statement_cache_size=0)
        self._connect_seconds = settings.exporter_connect_timeout_seconds
        # Planning takes half the time of a small scrape. But a pooler in transaction mode keeps neither our statements
        # nor the settings of our session.
        self._direct = settings.statement_cache_size > 0
        self._connection: Connection | None = None
        self._statements: dict[str, Any] = {}
        self._unused: set[str] = set()
        self._names = count()

    async def begin(self, statements: str) -> None:
        """Run the statements that open a pass, on the kept connection or on a new one."""
        if self._connection is not None and not self._connection.is_closed():
            try:
                async with asyncio.timeout(self._connect_seconds):
                    await self._connection.execute(statements)
                return
            except (*UNAVAILABLE, asyncpg.PostgresError) as error:
                # The server may have been restarted since the last pass, so try a new connection.
                log.info("connection lost, making another", extra={"reason": f"{type(error).__name__}: {error}"})
        self.drop()
        self._connection = await self._connector.connect(timeout=self._connect_seconds)
        await self._connection.execute(statements)

    async def execute(self, statements: str) -> None:
        """Run statements without a result, in one round trip."""
        await self._open().execute(statements)

    async def fetch(self, query: str) -> list[Any]:
        """Return the rows of a query, and keep its plan for the next pass. The server replans after DDL."""
        connection = self._open()
        if not self._direct:
            return list(await connection.fetch(query))
        self._unused.discard(query)
        if query not in self._statements:
            self._statements[query] = await connection.prepare(query, name=f"pulse_{next(self._names)}")
        return list(await self._statements[query].fetch())

    async def end(self, statements: str) -> None:
        """Run the statements that end a pass, and forget unused plans, whose views were dropped or changed."""
        for query in self._unused:
            del self._statements[query]
        self._unused = set(self._statements)
        await self.execute(statements)

    def drop(self) -> None:
        """Close the connection at once, in any state."""
        self._statements.clear()
        self._unused.clear()
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None

    def _open(self) -> Connection:
        if self._connection is None:
            raise asyncpg.InterfaceError("no pass was begun")
        return self._connection
