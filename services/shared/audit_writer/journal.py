"""Durable storage of rows: in the database while it answers in time, otherwise in the spool.

database answers ── row stored ──▶ durable
  └─ not within the time ──▶ spool ── fsync ──▶ durable; from now on straight to the spool,
       │                                         until the keeper finds the database answering again
       └─ full or failing ──▶ not durable: reported to the caller, and in the trail by a gap row

Rows enter audit_log exactly once, whatever the connection, the server or a single row does:

first try: COPY, or CALL for refused logins ── ok ──▶ stored
  └─ anything else: it is unknown which rows were stored
       ▼
audit.append of the same rows ── ok ──▶ stored; rows that exist stay as they are
  ├─ database away ──▶ wait and repeat until the deadline
  └─ a row is refused ──▶ halve until it is alone, then store an audit.quarantined row in its place
"""

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeAlias

import asyncpg
import orjson

from services.shared import db
from services.shared.audit_writer.gaps import Keep, is_quarantine, make_quarantine_line
from services.shared.audit_writer.line import COLUMNS, SEPARATOR, Line, read_line
from services.shared.audit_writer.spool import Spool
from services.shared.backoff import backoff_seconds

log = logging.getLogger(__name__)

Send: TypeAlias = Callable[[db.Connection, Sequence[Line]], Awaitable[Any]]

ACQUIRE_SECONDS = 10.0
RELEASE_SECONDS = 5.0
# Events wait in memory or on the local disk meanwhile, so retries are frequent.
LONGEST_BACKOFF_SECONDS = 1.0
LOG_EVERY_FAILURES = 20

# Data exception, constraint violation, program limit exceeded: a retry of the same row fails again.
_POISON_CLASSES = ("22", "23", "54")


async def copy(connection: db.Connection, lines: Sequence[Line]) -> None:
    """Store rows by COPY, which is fast, fails as a whole and refuses duplicates."""
    await connection.copy_to_table(
        "audit_log",
        schema_name="public",
        columns=COLUMNS,
        # asyncpg would take bytes for the name of a file.
        source=memoryview("\n".join([*lines, ""]).encode()),
        delimiter=SEPARATOR,
        null="",
    )


async def call(connection: db.Connection, lines: Sequence[Line]) -> None:
    """Store refused logins by the procedure that chooses their event types."""
    await connection.execute("call audit.record_auth_failures($1)", _make_rows(lines))


async def _append(connection: db.Connection, lines: Sequence[Line]) -> None:
    await connection.execute("select audit.append($1)", _make_rows(lines))


def _make_rows(lines: Sequence[Line]) -> list[dict[str, Any]]:
    return [{**row, "details": orjson.Fragment(row["details"] or "{}")} for row in map(read_line, lines)]


def is_poison(error: BaseException) -> bool:
    """Return whether the same rows would fail again: a row is at fault, not the connection or the server."""
    if isinstance(error, asyncpg.PostgresError):
        return (error.sqlstate or "")[:2] in _POISON_CLASSES
    return isinstance(error, TypeError | ValueError | OverflowError | AttributeError)


class Store:
    """Writes batches of rows over a pool; counts quarantined rows and repeated writes."""

    def __init__(self, pool: db.Pool, send: Send) -> None:
        self._pool = pool
        self._send = send
        self._given_up: set[asyncio.Task[None]] = set()
        self.quarantined = 0
        self.failures = 0

    async def write(self, lines: Sequence[Line], *, deadline: float = math.inf) -> bool:
        """Store every row, or a quarantine row in its place; return False if the deadline (loop time) came first."""
        if await self._try(self._send, lines, deadline) is None:
            return True
        self.failures += 1
        return await self.settle(lines, deadline=deadline)

    async def settle(self, lines: Sequence[Line], *, deadline: float = math.inf) -> bool:
        """Do the same for rows of any kind that may be stored already; slower."""
        pieces = [lines]
        failures = 0
        while pieces:
            piece = pieces.pop()
            error = await self._try(_append, piece, deadline)
            if error is None:
                failures = 0
            elif not is_poison(error) or (len(piece) == 1 and is_quarantine(piece[0])):
                # A quarantine row is plain ASCII. If even that is refused, the table is at fault, not the row.
                pieces.append(piece)
                failures += 1
                if not await self._wait(failures, error, deadline):
                    return False
            elif len(piece) == 1:
                log.error("audit event quarantined: %s", type(error).__name__)
                self.quarantined += 1
                pieces.append([make_quarantine_line(piece[0], error)])
            else:
                half = len(piece) // 2
                pieces += [piece[half:], piece[:half]]
        return True

    async def _try(self, send: Send, lines: Sequence[Line], deadline: float) -> Exception | None:
        sending = asyncio.create_task(self._send_once(send, lines))
        try:
            seconds = deadline - asyncio.get_running_loop().time()
            done, _ = await asyncio.wait({sending}, timeout=None if math.isinf(deadline) else max(0.0, seconds))
            if not done:
                return TimeoutError()
            if sending.cancelled():
                return TimeoutError()
            return sending.exception()  # type: ignore[return-value]  # any exception but a cancellation
        finally:
            if not sending.done():
                # Do not wait for the cleanup of a connection that hangs.
                self._given_up.add(sending)
                sending.add_done_callback(self._forget)
                sending.cancel()

    def _forget(self, sending: "asyncio.Task[None]") -> None:
        self._given_up.discard(sending)
        if not sending.cancelled():
            sending.exception()

    async def _send_once(self, send: Send, lines: Sequence[Line]) -> None:
        connection = await self._pool.acquire(timeout=ACQUIRE_SECONDS)
        try:
            await send(connection, lines)
        finally:
            # After a cancellation, asyncpg first asks the server to cancel the statement, so that none is left waiting
            # for a lock. The timeout bounds this, because the server may never answer.
            await self._pool.release(connection, timeout=RELEASE_SECONDS)

    async def _wait(self, failures: int, error: Exception, deadline: float) -> bool:
        self.failures += 1
        if failures % LOG_EVERY_FAILURES == 1:
            log.warning("audit events wait for the database: %s", type(error).__name__, extra={"failures": failures})
        seconds = backoff_seconds(failures, first_seconds=0.1, longest_seconds=LONGEST_BACKOFF_SECONDS)
        if asyncio.get_running_loop().time() + seconds >= deadline:
            return False
        await asyncio.sleep(seconds)
        return True


class Journal:
    """Makes rows durable in the database or the spool, within a bounded time."""

    def __init__(self, spool: Spool, *, database_seconds: float, on_away: Callable[[], None]) -> None:
        self.is_away = False
        """True if the database did not answer in time at the last attempt."""
        self.is_blocked = False
        """True if the last rows could be stored neither in the database nor in the spool."""
        self.database_seconds = database_seconds
        self._spool = spool
        self._on_away = on_away

    @property
    def longest_seconds(self) -> float:
        """Longest wait of a row: for the batch before it, then for its own."""
        return 2 * (self.database_seconds + self._spool.seconds) + 0.5

    def through(self, store: Store) -> Keep:
        """Return a function that makes rows durable and tries this store first."""

        async def keep(lines: Sequence[Line]) -> bool:
            if not self.is_away:
                deadline = asyncio.get_running_loop().time() + self.database_seconds
                if await store.write(lines, deadline=deadline):
                    self.is_blocked = False
                    return True
                self.is_away = True
                self._on_away()
            kept = await self._spool.append(lines)
            self.is_blocked = not kept
            # The keeper must find out when the database is back.
            self._on_away()
            return kept

        return keep
