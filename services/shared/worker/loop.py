"""The loop of every worker: drain, then wait for a notification, the poll interval or the stop signal.

         ┌─────────── a full batch ──────────┐
         ▼                                   │
wait ─▶ step ── fewer rows ─▶ wait ── woken ─┘
         │
         └── error ─▶ back off (jittered, doubling to 30 s) ─▶ step
"""

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import asyncpg

from services.shared import db, otlp
from services.shared.backoff import backoff_seconds
from services.shared.server import Process
from services.shared.worker.listener import Listener, describe, find_suspects, wait_for_any
from services.shared.worker.metrics import WorkerMetrics

log = logging.getLogger(__name__)

# Poll interval while no notification can wake a loop.
UNWOKEN_POLL_SECONDS = 1.0

FAILURES_TO_REPORT = 3
"""Failed passes in a row after which /health reports the loop."""


@dataclass(frozen=True, slots=True)
class Loop:
    """One kind of work. step handles a batch and returns its rows, 0 when idle. wake_on is a NOTIFY channel."""

    operation: str
    step: Callable[[db.Pool], Awaitable[int]]
    wake_on: str | None = None
    poll_seconds: float = 5.0
    full_batch: int = 1
    """Number of rows from which the next pass follows without a pause."""
    is_timer: bool = False
    """Measure every pass, including those that return 0."""
    wake: asyncio.Event | None = None
    """An event that the process sets when there is work before the next poll."""


async def run_loop(
    loop: Loop, process: Process, *, metrics: WorkerMetrics, listener: Listener, stop: asyncio.Event
) -> None:
    """Repeat loop.step until stop is set. A running pass is always finished."""
    assert process.pool is not None
    wakers = [listener.subscribe(loop.wake_on), *([loop.wake] if loop.wake else [])]
    failures = 0
    while not stop.is_set():
        for waker in wakers:
            waker.clear()  # before the pass, so that a notification during the pass wakes the next one
        started = time.perf_counter()
        try:
            rows = await otlp.record_pass(loop.operation, _pass(loop, process.pool))
        except Exception as error:  # noqa: BLE001  # no error of a step ends the loop
            failures += 1
            process.counters["errors"] += 1
            metrics.pass_failed(loop.operation, in_a_row=failures)
            if failures >= FAILURES_TO_REPORT:
                process.failing[loop.operation] = f"{failures} passes in a row failed: {type(error).__name__}"
            _tell(loop, error, failures, await _blockers(process.pool, error))
            await db.replace_stale(process.pool, error)
            await wait_for_any(backoff_seconds(failures), stop)
            continue
        failures = 0
        process.failing.pop(loop.operation, None)
        metrics.pass_ended(loop.operation, rows=rows)
        # Idle passes are many and short: they would hide the duration of work.
        if rows or loop.is_timer:
            metrics.pass_worked(loop.operation, seconds=time.perf_counter() - started)
        process.counters["passes"] += 1
        process.counters["rows"] += rows
        process.last_pass_at = datetime.now(UTC)
        if rows < loop.full_batch:
            # Jitter keeps copies of a worker from polling at the same time.
            await wait_for_any(_longest_wait(loop, listener) * random.uniform(0.9, 1.1), stop, *wakers)


async def _pass(loop: Loop, pool: db.Pool) -> int:
    """Run a pass, and repeat it once if a migration replaced its functions meanwhile."""
    return await db.retried(pool, lambda: loop.step(pool))


def _longest_wait(loop: Loop, listener: Listener) -> float:
    is_woken = loop.wake_on is None or listener.state == "connected"
    return loop.poll_seconds if is_woken else min(loop.poll_seconds, UNWOKEN_POLL_SECONDS)


async def _blockers(pool: db.Pool, error: Exception) -> Sequence[asyncpg.Record]:
    """Return sessions that may hold the lock of a failed pass; after a time-out, only those that block others."""
    if isinstance(error, asyncpg.LockNotAvailableError):
        return await find_suspects(pool)
    if isinstance(error, asyncpg.QueryCanceledError) or (isinstance(error, TimeoutError) and db.outage(error)):
        return [session for session in await find_suspects(pool) if session["blocks"]]
    return ()


def _tell(loop: Loop, error: Exception, failures: int, blockers: Sequence[asyncpg.Record]) -> None:
    # A lock of another session is no fault of this program: a traceback would hide the holder.
    away = db.outage(error) is not None or isinstance(error, asyncpg.LockNotAvailableError)
    # A missing privilege is for an administrator to grant: a traceback would hide its name.
    refused = isinstance(error, asyncpg.InsufficientPrivilegeError)
    log.log(
        logging.WARNING if away else logging.ERROR,
        "pass failed: %s: %s%s",
        type(error).__name__,
        error,
        f"; blocked by {describe(blockers)}" if blockers else "",
        extra={
            "operation": loop.operation,
            "failures": failures,
            **({"blockers": [{"pid": each["pid"], "role": each["role"]} for each in blockers]} if blockers else {}),
        },
        exc_info=None if away or refused else error,
    )
