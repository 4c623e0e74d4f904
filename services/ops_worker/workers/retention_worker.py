"""Removal of rows that are older than their retention."""

import logging
from dataclasses import dataclass, field

from asyncpg import LockNotAvailableError

from services.ops_worker.acting import act_as_system
from services.ops_worker.lock_wait import LockWait
from services.shared import tracing
from services.shared.db import Pool

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RetentionWorker:
    """Retention in days. A pass removes at most one day of readings, batch alerts and batch samples."""

    telemetry_days: int
    alert_days: int
    service_metrics_days: int
    batch: int
    _rows: LockWait = field(default_factory=lambda: LockWait("retention"), init=False)
    _readings: LockWait = field(default_factory=lambda: LockWait("retention of readings"), init=False)

    async def prune(self, pool: Pool) -> int:
        """Remove old rows; return the number of removed rows and partitions, 0 if a lock was not free in time."""
        with tracing.use_trace_id(None):
            readings = await self._remove(
                self._readings,
                pool,
                "select what, removed from ops.prune_telemetry($1, $2)",
                self.telemetry_days,
                self.batch,
            )
            # In a separate transaction, because dropping partitions locks telemetry until the commit.
            others = await self._remove(
                self._rows,
                pool,
                "select what, removed from ops.prune($1, $2, $3)",
                self.alert_days,
                self.service_metrics_days,
                self.batch,
            )
        return readings + others

    async def _remove(self, lock: LockWait, pool: Pool, query: str, *arguments: int) -> int:
        try:
            async with act_as_system(pool) as connection:
                rows = await connection.fetch(query, *arguments)
        except LockNotAvailableError as error:
            await lock.give_up(pool, error)
            return 0
        lock.end()
        if rows:
            log.info("old rows removed", extra={"removed": {row["what"]: row["removed"] for row in rows}})
        return sum(row["removed"] for row in rows)
