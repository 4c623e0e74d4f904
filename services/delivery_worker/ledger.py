"""Records the outcomes of attempts in batches. Outcomes that arrive during a write form the next batch."""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import asyncpg
from prometheus_client import Histogram

from services.delivery_worker.job import Job, Result
from services.shared import tracing
from services.shared.backoff import backoff_seconds
from services.shared.db import UNAVAILABLE
from services.shared.logging import tell
from services.shared.server import Process
from services.shared.settings import DeliverySettings

log = logging.getLogger(__name__)

_LARGEST_BATCH = 1000
# An attempt counts as hanging from this share of the time-out.
_HANGING_SHARE = 0.9


class Ledger:
    """Results that wait to be recorded. None is dropped while the process runs.

    slot_freed is called after each recorded batch, because a job holds its slot until then.
    due_in is called with the seconds until a recorded job may be retried.
    """

    def __init__(
        self,
        process: Process,
        *,
        slot_freed: Callable[[], None],
        duration: Histogram,
        settings: DeliverySettings,
        due_in: Callable[[float], None],
    ) -> None:
        self._process = process
        self._slot_freed = slot_freed
        self._duration = duration
        self._settings = settings
        self._due_in = due_in
        self._waiting: deque[Result] = deque()
        self._writing: Sequence[Result] = ()
        self._arrived = asyncio.Event()
        self._recorded = asyncio.Event()
        self._recorded.set()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start to write."""
        self._task = asyncio.create_task(self._write_forever(), name="ledger")

    async def stop(self, *, seconds: float) -> None:
        """Write the remaining results. The reaper handles jobs whose results cannot be written in time."""
        assert self._task is not None
        try:
            async with asyncio.timeout(seconds):
                await self._recorded.wait()
        except TimeoutError:
            log.warning("stopped with outcomes unrecorded", extra={"jobs": len(self.unrecorded())})
        self._task.cancel()
        await asyncio.wait([self._task])

    def record(self, result: Result) -> None:
        """Queue one result."""
        self._waiting.append(result)
        self._recorded.clear()
        self._arrived.set()

    def unrecorded(self) -> Sequence[Job]:
        """Return the jobs whose lease is still needed."""
        return [result.job for result in (*self._writing, *self._waiting)]

    async def _write_forever(self) -> None:
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            while self._waiting:
                self._writing = [self._waiting.popleft() for _ in range(min(len(self._waiting), _LARGEST_BATCH))]
                await self._write_until_done(self._writing)
                self._writing = ()
                self._slot_freed()
            self._recorded.set()

    async def _write_until_done(self, results: Sequence[Result]) -> None:
        failures = 0
        while True:
            try:
                await self._write(results)
                return
            except (asyncpg.DataError, asyncpg.IntegrityConstraintViolationError):
                if len(results) == 1:
                    log.exception("outcome cannot be recorded", extra={"job_id": results[0].job.job_id})
                    return
                break  # one bad result must not keep the others from being stored
            except (*UNAVAILABLE, asyncpg.PostgresError) as error:
                failures += 1
                log.warning("outcomes not recorded yet: %s", type(error).__name__, extra={"jobs": len(results)})
            await asyncio.sleep(backoff_seconds(failures))
        for result in results:
            await self._write_until_done([result])

    async def _write(self, results: Sequence[Result]) -> None:
        assert self._process.pool is not None
        with self._duration.time():
            rows = await self._process.pool.fetch(
                "select job_id, state, run_at from delivery.finish("
                "p_tenant_ids => $1, p_job_ids => $2, p_lease_epochs => $3, p_outcomes => $4, p_status_codes => $5,"
                " p_errors => $6, p_started_ats => $7, p_durations_ms => $8, p_retry_after_seconds => $9,"
                " p_backoff_base_seconds => $10, p_backoff_max_seconds => $11, p_limited_max_seconds => $12,"
                " p_hanging_ms => $13)",
                *_columns(results, longest_pause=self._settings.delivery_retry_after_max_seconds),
                self._settings.delivery_backoff_seconds,
                self._settings.delivery_backoff_max_seconds,
                self._settings.delivery_limited_max_seconds,
                _HANGING_SHARE * self._settings.delivery_timeout_seconds * 1000,
            )
        settled = {row["job_id"]: row for row in rows}
        for result in results:
            _tell(result, settled.get(result.job.job_id))
        for run_at in {row["run_at"] for row in rows if row["run_at"] is not None}:
            self._due_in((run_at - datetime.now(UTC)).total_seconds())


def _columns(results: Sequence[Result], *, longest_pause: float) -> tuple[list[Any], ...]:
    rows = [
        (
            result.job.tenant_id,
            result.job.job_id,
            result.job.lease_epoch,
            result.name,
            result.status_code,
            result.reason,
            result.started_at,
            result.duration_ms,
            None if result.retry_after_seconds is None else min(result.retry_after_seconds, longest_pause),
        )
        for result in results
    ]
    return tuple(list(column) for column in zip(*rows, strict=True))


def _tell(result: Result, settled: asyncpg.Record | None) -> None:
    """Log one line for an attempt."""
    job = result.job
    extra = {
        "tenant_id": job.tenant_id,
        "job_id": job.job_id,
        "alert_id": job.alert_id,
        "channel_id": job.channel_id,
        "channel_kind": job.channel_kind,
        "kind": job.kind,
        "attempt": job.lease_epoch,
        "outcome": result.name,
        "state": settled["state"] if settled else "lost",
        "status_code": result.status_code,
        "error": result.reason,
        "duration_ms": round(result.duration_ms, 1),
    }
    if settled and settled["run_at"]:
        extra["next_attempt_at"] = settled["run_at"].isoformat()
    levels = {"delivered": logging.INFO, "dead": logging.ERROR}
    with tracing.use(result.context):
        if settled is None:
            log.warning("attempt ended after its lease was lost", extra=extra)
        else:
            tell(log, levels.get(settled["state"], logging.WARNING), f"notification {result.name}", extra)
