"""The connection of a worker that LISTENs, and the pings that prove it receives.

          ┌────── a ping came back ──────┐
          │                              ▼
start ─▶ deaf                        connected ──┐
        │ ▲ ▲                         │     ▲    │ a ping each 2.5 s
        │ │ └── lost, or no ping back ┘     └────┘
        └─┘ reconnect, after a pause that doubles

Only a received notification proves that notifications arrive. A network that drops packets does not end the connection,
and a pooler in transaction mode accepts LISTEN and forgets it. Therefore the worker pings itself through its pool.
While pings do not come back, its loops poll each second.
"""

import asyncio
import logging
import secrets
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NoReturn

import asyncpg

from services.shared import db
from services.shared.backoff import backoff_seconds
from services.shared.connecting.connector import Connector
from services.shared.server import Process
from services.shared.worker.metrics import ListenerState, WorkerMetrics

log = logging.getLogger(__name__)

# Short, because the sessions are only for a log line.
_SUSPECTS_SECONDS = 2.0


async def wait_for_any(seconds: float, *events: asyncio.Event) -> None:
    """Return when one of the events is set or the time is over."""
    waits = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()


async def find_suspects(pool: db.Pool, *, whole_server: bool = False) -> Sequence[asyncpg.Record]:
    """Return the sessions that block others, then those with the oldest transactions; none if they cannot be read."""
    try:
        async with pool.acquire(timeout=_SUSPECTS_SECONDS) as connection:
            sessions: Sequence[asyncpg.Record] = await connection.fetch(
                "select pid, role, state, open_seconds, blocks from ops.lock_suspects($1)",
                whole_server,
                timeout=_SUSPECTS_SECONDS,
            )
            return sessions
    except (*db.UNAVAILABLE, asyncpg.PostgresError) as error:
        log.debug("sessions not read: %s: %s", type(error).__name__, error)
        return ()


def describe(suspects: Sequence[asyncpg.Record]) -> str:
    """Return one line about the sessions, the most likely first."""
    return "; ".join(
        f"pid {session['pid']} of role {session['role']} ({session['state'] or 'hidden'}"
        + (f", open for {session['open_seconds']:.0f} s" if session["open_seconds"] is not None else "")
        + (f", blocks {session['blocks']}" if session["blocks"] else "")
        + ")"
        for session in suspects
    )


@dataclass(frozen=True, slots=True)
class Timing:
    """ping_seconds: pause between a returned ping and the next. deaf_seconds: time-out of a ping and of connecting.

    Commits with NOTIFY wait for each other in the server, so a ping must be rare enough to cost nothing there.
    """

    ping_seconds: float = 2.5
    deaf_seconds: float = 5.0


class Listener:
    """Wakes loops when notifications arrive. `state` says whether loops can rely on that."""

    def __init__(self, process: Process, metrics: WorkerMetrics, *, timing: Timing | None = None) -> None:
        self.state: ListenerState = "polling" if process.settings.listen_dsn is None else "deaf"
        self._process = process
        self._metrics = metrics
        self._timing = timing or Timing()
        self._events: dict[str, list[asyncio.Event]] = defaultdict(list)
        self._ping_channel = f"pulse_ping_{secrets.token_hex(8)}"
        self._pings = 0
        self._answered = asyncio.Event()
        self._connections = 0
        self._told: ListenerState = "connected"
        self._since = time.monotonic()
        metrics.listener_is(self.state)

    def subscribe(self, channel: str | None) -> asyncio.Event:
        """Return an event that is set when the channel may have work; without a channel it is never set."""
        event = asyncio.Event()
        if channel is not None:
            self._events[channel].append(event)
        return event

    async def run(self, channels: Iterable[str]) -> None:
        """Listen until canceled. Return at once if listening is switched off."""
        dsn = self._process.settings.listen_dsn
        if dsn is None:
            return
        wanted = sorted(set(channels))
        connector = db.connector_for(
            self._process.settings,
            dsn,
            suffix="-listen",
            command_timeout=self._timing.deaf_seconds,
            statement_cache_size=0,
        )
        failures = 0
        while True:
            try:
                await self._listen(connector, wanted)
            except (*db.UNAVAILABLE, asyncpg.PostgresError) as error:
                # A connection that is lost soon after each first ping must not be replaced without a pause.
                held = self.state == "connected" and time.monotonic() - self._since > self._timing.deaf_seconds
                failures = 1 if held else failures + 1
                self._enter("deaf", f"{type(error).__name__}: {error}")
            await asyncio.sleep(backoff_seconds(failures))

    async def _listen(self, connector: Connector, channels: Iterable[str]) -> NoReturn:
        """Listen on one connection. Raises one of UNAVAILABLE when it is lost or a ping does not come back."""
        connection = await connector.connect(timeout=self._timing.deaf_seconds)
        lost = asyncio.Event()
        try:
            connection.add_termination_listener(lambda _connection: lost.set())
            await connection.add_listener(self._ping_channel, self._hear_ping)
            for channel in channels:
                await connection.add_listener(channel, partial(self._wake, channel))
            self._connections += 1
            if self._connections > 1:
                self._metrics.listener_restarted()
            while True:
                await self._ping(lost)
                await wait_for_any(self._timing.ping_seconds, lost)
        finally:
            # Abort instead of closing gracefully: the peer may be unreachable and close() would block.
            connection.terminate()

    async def _ping(self, lost: asyncio.Event) -> None:
        """Send a ping and wait for it. A ping that could not be sent changes nothing."""
        self._answered.clear()
        self._pings += 1
        sent = await self._send()
        if sent is False:
            suspects = (
                describe(await find_suspects(self._process.pool, whole_server=True)) if self.state != "deaf" else ""
            )
            self._enter("deaf", f"the NOTIFY queue of the server is half full; oldest transactions: {suspects}")
        if sent:
            await wait_for_any(self._timing.deaf_seconds, self._answered, lost)
            if not self._answered.is_set() and not lost.is_set():
                raise TimeoutError("its own notification did not arrive")
        if lost.is_set():
            raise ConnectionResetError("the connection was lost")
        if self._answered.is_set():
            self._enter("connected", "notifications arrive")

    async def _send(self) -> bool | None:
        """Return whether the ping is committed; False if the NOTIFY queue is too full.

        None means unknown: a full pool or an unreachable database says nothing about the listener.
        """
        assert self._process.pool is not None
        seconds = self._timing.deaf_seconds
        try:
            async with self._process.pool.acquire(timeout=seconds) as connection:
                return (
                    await connection.fetchval(
                        "select core.notify($1, $2)", self._ping_channel, str(self._pings), timeout=seconds
                    )
                    is True
                )
        except (*db.UNAVAILABLE, asyncpg.PostgresError) as error:
            log.debug("ping not sent: %s", type(error).__name__)
            return None

    def _hear_ping(self, _connection: object, _pid: int, _channel: str, number: str) -> None:
        if number == str(self._pings):
            self._answered.set()

    def _wake(self, channel: str, *_notification: object) -> None:
        for event in self._events[channel]:
            event.set()

    def _enter(self, state: ListenerState, reason: str) -> None:
        """Change the state and wake every loop, because notifications may have been missed."""
        if state != self.state:
            self.state = state
            self._since = time.monotonic()
            self._metrics.listener_is(state)
            for channel in self._events:
                self._wake(channel)
        if state != self._told:
            self._told = state
            level = logging.INFO if state == "connected" else logging.WARNING
            log.log(level, "listener is %s: %s", state, reason)
