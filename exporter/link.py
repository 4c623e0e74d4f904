"""The exporter's one connection and its prepared statements, kept from pass to pass and made anew when it is lost."""

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

    Every method raises what UNAVAILABLE holds when the connection is lost, and asyncpg.PostgresError when the server
    refuses; after either of them drop() is the way on, unless a savepoint heals the transaction.
    """

    def __init__(self, settings: ExporterSettings) -> None:
        # Statements are kept here instead: asyncpg's cache would raise on a view that was replaced meanwhile.
        self._connector = connector_for(settings, settings.database_url, statement_cache_size=0)
        self._connect_seconds = settings.exporter_connect_timeout_seconds
        # Half of a small scrape is planning; a pooler in transaction mode, though, knows neither our statements nor
        # our session's settings.
        self._direct = settings.statement_cache_size > 0
        self._connection: Connection | None = None
        self._statements: dict[str, Any] = {}
        self._unused: set[str] = set()
        self._names = count()

    async def begin(self, statements: str) -> None:
        """Run the statements that open a pass, on the connection that is kept or on a new one."""
        if self._connection is not None and not self._connection.is_closed():
            try:
                async with asyncio.timeout(self._connect_seconds):
                    await self._connection.execute(statements)
                return
            except (*UNAVAILABLE, asyncpg.PostgresError) as error:
                # The server may have been restarted since the last pass; only a new connection can tell.
                log.info("connection lost, making another", extra={"reason": f"{type(error).__name__}: {error}"})
        self.drop()
        self._connection = await self._connector.connect(timeout=self._connect_seconds)
        await self._connection.execute(statements)

    async def execute(self, statements: str) -> None:
        """Run statements without result, in one round trip."""
        await self._open().execute(statements)

    async def fetch(self, query: str) -> list[Any]:
        """The rows of a query, whose plan is kept for the next pass; the server plans anew what DDL has changed."""
        connection = self._open()
        if not self._direct:
            return list(await connection.fetch(query))
        self._unused.discard(query)
        if query not in self._statements:
            self._statements[query] = await connection.prepare(query, name=f"pulse_{next(self._names)}")
        return list(await self._statements[query].fetch())

    async def end(self, statements: str) -> None:
        """Run the statements that end a pass, and forget what it did not use: those views are gone or were changed."""
        for query in self._unused:
            del self._statements[query]
        self._unused = set(self._statements)
        await self.execute(statements)

    def drop(self) -> None:
        """Close the connection at once, whatever state it is in."""
        self._statements.clear()
        self._unused.clear()
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None

    def _open(self) -> Connection:
        if self._connection is None:
            raise asyncpg.InterfaceError("no pass was begun")
        return self._connection
