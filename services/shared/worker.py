"""The one loop every worker runs: listen, drain, wait for the first of notification, poll interval, stop.

         ┌──────────── rows > 0 ───────────┐
         ▼                                 │
wait ─▶ step ── 0 rows ─▶ wait ── woken ───┘
         │
         └── error ─▶ back off (jittered, doubling to 30 s) ─▶ step
"""

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import UTC, datetime

import asyncpg
from starlette.applications import Starlette

from services.shared import db, otlp
from services.shared.metrics import ProcessMetrics
from services.shared.server import Process, record_process, run_process, serve, status_routes, stop_on_signals
from services.shared.settings import Settings

log = logging.getLogger(__name__)

LONGEST_BACKOFF_SECONDS = 30.0
# A listener whose server has not answered by then is deaf and connects anew.
LISTEN_TIMEOUT_SECONDS = 5.0
# A stop may take 10 s in all: a pass that waits for a lock longer than this is cut off, and its transaction undone.
PASS_GRACE_SECONDS = 4.0


@dataclass(frozen=True, slots=True)
class Loop:
    """One kind of work: step handles a batch and returns its rows, 0 when idle; wake_on is a NOTIFY channel."""

    operation: str
    step: Callable[[db.Pool], Awaitable[int]]
    wake_on: str | None = None
    poll_seconds: float = 5.0


Build = Callable[[Process], Sequence[Loop] | AbstractAsyncContextManager[Sequence[Loop]]]
"""Makes the loops of a process; a context manager when something must be opened and closed around them."""


def backoff_seconds(failures: int) -> float:
    """Seconds to wait after so many failures in a row: doubling from 0.2 to 30, each between half and whole."""
    return min(LONGEST_BACKOFF_SECONDS, 0.1 * 2.0 ** min(failures, 16)) * (0.5 + random.random() / 2)


def entered(
    built: Sequence[Loop] | AbstractAsyncContextManager[Sequence[Loop]],
) -> AbstractAsyncContextManager[Sequence[Loop]]:
    """What a build returned, as a context manager."""
    return contextlib.nullcontext(built) if isinstance(built, Sequence) else built


async def run_loop(loop: Loop, process: Process, woken: asyncio.Event, stop: asyncio.Event) -> None:
    """Repeat loop.step until stop is set; the pass in hand is always finished."""
    assert process.pool is not None
    failures = 0
    duration = process.metrics.processing(loop.operation)
    while not stop.is_set():
        woken.clear()  # before the pass: what arrives during it wakes the next one
        started = time.perf_counter()
        try:
            rows = await otlp.record_pass(loop.operation, loop.step(process.pool))
            failures = 0
        except Exception as error:
            failures += 1
            process.counters["errors"] += 1
            away = isinstance(error, db.UNAVAILABLE)
            # What the database refuses to the role is for whoever grants rights: a traceback would hide it.
            refused = isinstance(error, asyncpg.InsufficientPrivilegeError)
            log.log(
                logging.WARNING if away else logging.ERROR,
                "pass failed: %s: %s",
                type(error).__name__,
                error,
                extra={"operation": loop.operation, "failures": failures},
                exc_info=not (away or refused),
            )
            await _wait_for_any(backoff_seconds(failures), stop)
            continue
        if rows or loop.wake_on is None:
            duration.observe(time.perf_counter() - started)
        process.counters["passes"] += 1
        process.counters["rows"] += rows
        process.last_pass_at = datetime.now(UTC)
        if rows == 0:
            # Jitter keeps many copies from polling in step.
            await _wait_for_any(loop.poll_seconds * random.uniform(0.9, 1.1), stop, woken)


async def _wait_for_any(seconds: float, *events: asyncio.Event) -> None:
    waits = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()


async def listen(
    settings: Settings,
    channels: dict[str, Sequence[asyncio.Event]],
    stop: asyncio.Event,
) -> None:
    """Set a channel's events at each NOTIFY; reconnect for ever, for a notification is only a hint."""
    failures = 0
    while not stop.is_set():
        lost = asyncio.Event()
        try:
            connection = await asyncpg.connect(
                settings.listen_dsn,
                timeout=10,
                command_timeout=LISTEN_TIMEOUT_SECONDS,
                server_settings={"application_name": f"pulse-{settings.service}-listen"},
            )
        except (*db.UNAVAILABLE, asyncpg.PostgresError) as error:
            failures += 1
            log.warning("listener cannot connect: %s", type(error).__name__, extra={"failures": failures})
            await _wait_for_any(backoff_seconds(failures), stop)
            continue
        try:
            connection.add_termination_listener(lambda _connection, lost=lost: lost.set())
            for channel, events in channels.items():
                await connection.add_listener(channel, lambda *_args, events=events: _set_all(events))
            failures = 0
            for events in channels.values():
                _set_all(events)  # what was notified while nobody listened
            await _wait_until_lost(connection, lost, stop)
        except (*db.UNAVAILABLE, asyncpg.PostgresError) as error:
            failures += 1
            log.warning("listener lost its connection: %s", type(error).__name__)
            await _wait_for_any(backoff_seconds(failures), stop)
        finally:
            with contextlib.suppress(*db.UNAVAILABLE, asyncpg.PostgresError):
                await connection.close(timeout=1)


def _set_all(events: Sequence[asyncio.Event]) -> None:
    for event in events:
        event.set()


async def _wait_until_lost(connection: db.Connection, lost: asyncio.Event, stop: asyncio.Event) -> None:
    """Return at stop or when the connection ends; a dead peer that sends no RST is found by asking it."""
    while not stop.is_set() and not lost.is_set():
        await _wait_for_any(5.0, stop, lost)
        if not stop.is_set() and not lost.is_set():
            await connection.execute("select 1")


async def connect(settings: Settings, stop: asyncio.Event) -> db.Pool | None:
    """A pool on a database of the right revision; waits while the server is away, None when stopped first.

    Raises SchemaMismatch when the database is there but too old, UnsafeDatabase when it would lose rows in a crash.
    """
    failures = 0
    while not stop.is_set():
        try:
            pool = await db.open_pool(settings)
        except db.UNAVAILABLE as error:
            failures += 1
            log.warning("database away: %s", type(error).__name__, extra={"failures": failures})
            await _wait_for_any(backoff_seconds(failures), stop)
            continue
        try:
            async with pool.acquire(timeout=db.ACQUIRE_SECONDS) as connection:
                await db.check_revision(connection)
                if not settings.allow_unsafe_database:
                    await db.check_durability(connection)
            return pool
        except db.UNAVAILABLE:
            pool.terminate()
            failures += 1
            await _wait_for_any(backoff_seconds(failures), stop)
        except BaseException:
            pool.terminate()
            raise
    return None


async def _run(settings: Settings, build: Build) -> None:
    stop = stop_on_signals()
    process = Process(settings=settings, metrics=ProcessMetrics(settings.service))
    server = asyncio.create_task(
        serve(
            Starlette(routes=status_routes(process)),
            host=settings.host,
            port=settings.port,
            stop=stop,
        ),
        name="status-server",
    )
    server.add_done_callback(lambda _task: stop.set())  # without its port the process must not linger
    try:
        process.pool = await connect(settings, stop)
        if process.pool is not None:
            process.metrics.watch_pool(process.pool)
            async with entered(build(process)) as loops:
                await _run_loops(process, loops, stop)
    finally:
        process.stopping = True
        stop.set()
        await server
        if process.pool is not None:
            await _close(process.pool)


async def _run_loops(process: Process, loops: Sequence[Loop], stop: asyncio.Event) -> None:
    channels: dict[str, list[asyncio.Event]] = {}
    async with asyncio.TaskGroup() as tasks:
        running = []
        for loop in loops:
            process.metrics.processing(loop.operation)
            woken = asyncio.Event()
            if loop.wake_on is not None:
                channels.setdefault(loop.wake_on, []).append(woken)
            running.append(tasks.create_task(run_loop(loop, process, woken, stop), name=loop.operation))
        if channels:
            running.append(tasks.create_task(listen(process.settings, dict(channels), stop), name="listener"))
        process.ready = True
        await record_process(process, "started")
        log.info("started", extra={"operations": [loop.operation for loop in loops]})
        await stop.wait()
        process.stopping = True
        log.info("stopping")
        for task in (await asyncio.wait(running, timeout=PASS_GRACE_SECONDS))[1]:
            log.warning("cut off", extra={"operation": task.get_name()})
            task.cancel()
    await record_process(process, "stopped")


async def _close(pool: db.Pool) -> None:
    try:
        async with asyncio.timeout(3):
            await pool.close()
    except (TimeoutError, *db.UNAVAILABLE):
        pool.terminate()


def run_worker(settings_class: type[Settings], build: Build) -> None:
    """Run a worker process until SIGTERM; exits 0 after a clean stop, 1 with one line when it cannot start."""
    run_process(settings_class, lambda settings: _run(settings, build))
