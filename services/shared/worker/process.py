"""The process of a worker: settings, status server, pool, loops and stop."""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager

import asyncpg

from services.shared import db
from services.shared.backoff import backoff_seconds
from services.shared.connecting.fitness import check_durability, check_revision
from services.shared.connecting.session import check_pooled_session
from services.shared.metrics import ProcessMetrics
from services.shared.process import record_process, run_process, stop_on_signals
from services.shared.server import Process, serve_process, status_app
from services.shared.settings import Settings
from services.shared.worker.listener import Listener, wait_for_any
from services.shared.worker.loop import Loop, run_loop
from services.shared.worker.metrics import WorkerMetrics

log = logging.getLogger(__name__)

# A stop may take 10 s in all. A pass that still waits for a lock after this time is canceled and rolled back.
PASS_GRACE_SECONDS = 4.0

Build = Callable[[Process], Sequence[Loop] | AbstractAsyncContextManager[Sequence[Loop]]]
"""Returns the table of a worker's loops, before there is a database; a context manager opens and closes what they need.

The metrics of the loops are made from the same table, so a loop cannot be without its metrics.
"""


def entered(
    built: Sequence[Loop] | AbstractAsyncContextManager[Sequence[Loop]],
) -> AbstractAsyncContextManager[Sequence[Loop]]:
    """Return the result of a build as a context manager."""
    return contextlib.nullcontext(built) if isinstance(built, Sequence) else built


async def connect(process: Process, stop: asyncio.Event) -> db.Pool | None:
    """Return a pool on a database of the right revision, or None if stopped first. Wait while the server is away.

    Raises SchemaMismatch if the database is too old, UnsafeDatabase if it could lose or change rows, and
    asyncpg.PostgresError if the server refuses the login.
    """
    failures = 0
    while not stop.is_set():
        try:
            pool = await _open_checked(process.settings)
        except (*db.UNAVAILABLE, asyncpg.PostgresError) as error:
            if not db.ends_by_itself(error):
                raise
            failures += 1
            process.away = db.outage(error)
            log.warning("database away: %s: %s", type(error).__name__, error, extra={"failures": failures})
            await wait_for_any(backoff_seconds(failures), stop)
        else:
            process.away = None
            return pool
    return None


async def _open_checked(settings: Settings) -> db.Pool:
    """Return a pool after its first connection has passed every check of the database."""
    pool = await db.open_pool(settings)
    try:
        async with pool.acquire(timeout=db.ACQUIRE_SECONDS) as connection:
            await check_revision(connection)
            if settings.statement_cache_size == 0:  # behind a pooler only the role can have the settings of a session
                await check_pooled_session(connection)
            if not settings.allow_unsafe_database:
                await check_durability(connection)
    except BaseException:
        pool.terminate()
        raise
    return pool


class _PoolOf:
    """Sizes of the pool of a process, 0 while it has no pool."""

    def __init__(self, process: Process) -> None:
        self._process = process

    def get_size(self) -> int:
        return self._process.pool.get_size() if self._process.pool is not None else 0

    def get_idle_size(self) -> int:
        return self._process.pool.get_idle_size() if self._process.pool is not None else 0


async def _run(settings: Settings, build: Build) -> None:
    stop = stop_on_signals()
    process = Process(settings=settings, metrics=ProcessMetrics(settings.service))
    process.metrics.watch_pool(_PoolOf(process))
    server = asyncio.create_task(serve_process(process, status_app(process), stop=stop), name="status-server")
    server.add_done_callback(lambda _task: stop.set())  # a process without its port must end
    try:
        async with entered(build(process)) as loops:
            metrics = WorkerMetrics(process.metrics, loops=[loop.operation for loop in loops])
            listener = Listener(process, metrics)
            process.pool = await connect(process, stop)
            if process.pool is not None:
                await run_loops(process, loops, metrics=metrics, listener=listener, stop=stop)
    finally:
        process.stopping = True
        stop.set()
        await server
        if process.pool is not None:
            await db.close_pool(process.pool)


async def run_loops(
    process: Process, loops: Sequence[Loop], *, metrics: WorkerMetrics, listener: Listener, stop: asyncio.Event
) -> None:
    """Run the loops side by side until stop is set, and record the start and stop of the process."""
    channels = {loop.wake_on for loop in loops if loop.wake_on is not None}
    async with asyncio.TaskGroup() as tasks:
        running = [
            tasks.create_task(
                run_loop(loop, process, metrics=metrics, listener=listener, stop=stop), name=loop.operation
            )
            for loop in loops
        ]
        listening = tasks.create_task(listener.run(channels), name="listener")
        process.ready = True
        await record_process(process, "started")
        log.info("started", extra={"operations": [loop.operation for loop in loops]})
        await stop.wait()
        process.stopping = True
        log.info("stopping")
        listening.cancel()
        for task in (await asyncio.wait(running, timeout=PASS_GRACE_SECONDS))[1]:
            log.warning("pass canceled", extra={"operation": task.get_name()})
            task.cancel()
    await record_process(process, "stopped")


def run_worker(settings_class: type[Settings], build: Build) -> None:
    """Run a worker process until SIGTERM; exit 0 after a clean stop, 1 with one line when it cannot start."""
    run_process(settings_class, lambda settings: _run(settings, build))
