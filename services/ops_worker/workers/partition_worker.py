"""Partitions of telemetry and audit_log, made in advance."""

import logging
from dataclasses import dataclass, field

from asyncpg import LockNotAvailableError

from services.ops_worker.acting import act_as_system
from services.ops_worker.lock_wait import LockWait
from services.shared import tracing
from services.shared.db import Pool

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PartitionWorker:
    """Makes partitions this far ahead."""

    ahead_days: int
    ahead_months: int
    _lock: LockWait = field(default_factory=lambda: LockWait("making partitions"), init=False)

    async def make(self, pool: Pool) -> int:
        """Make missing partitions. Return 0, so that a busy table is left to the next pass."""
        with tracing.use_trace_id(None):
            try:
                async with act_as_system(pool) as connection:
                    rows = await connection.fetch(
                        "select partition_name, outcome, rows_moved from ops.ensure_partitions($1, $2)",
                        self.ahead_days,
                        self.ahead_months,
                    )
            except LockNotAvailableError as error:
                await self._lock.give_up(pool, error)
                return 0
            for row in rows:
                log.log(
                    logging.INFO if row["outcome"] == "created" else logging.WARNING,
                    "partition %s",
                    row["outcome"],
                    extra={"partition": row["partition_name"], "rows_moved": row["rows_moved"]},
                )
            if any(row["outcome"] == "busy" for row in rows):
                await self._lock.give_up(pool, LockNotAvailableError("a table with missing partitions is busy"))
            else:
                self._lock.end()
        return 0
