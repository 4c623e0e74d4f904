"""Refusals by limits, counted in memory and added to the database's counts once a second.

The database writes the audit event, so all processes together write one for each tenant and limit in ten minutes.
"""

import asyncio
import contextlib
import logging

import asyncpg

from services.shared import tracing
from services.shared.db import UNAVAILABLE, Actor, act
from services.shared.server import Process

log = logging.getLogger(__name__)

FLUSH_SECONDS = 1.0
STOP_SECONDS = 3.0
# Pairs of tenant and limit that are counted separately until the next flush. Others count for the tenant `system`.
MOST_KEYS = 10_000

Key = tuple[str, str]
"""Tenant and limit."""


class LimitRefusals:
    """Counts refusals without waiting. A process that is killed loses the counts of its last second."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._counts: dict[Key, int] = {}
        self._values: dict[Key, int | None] = {}
        self._task: asyncio.Task[None] | None = None
        self._stop = asyncio.Event()

    def count(self, tenant_id: str, limit: str, value: int | None = None, *, refused: int = 1) -> None:
        """Count refusals by a limit. value: the limit, or None if the caller does not know it."""
        key = (tenant_id, limit)
        if key not in self._counts and len(self._counts) >= MOST_KEYS:
            key = ("system", limit)
        self._counts[key] = self._counts.get(key, 0) + refused
        self._values[key] = value
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._flush_until_empty(), name="limit-refusals")

    async def stop(self) -> None:
        """Store the remaining counts if the database accepts them in time."""
        self._stop.set()
        if self._task is not None:
            # A canceled commit would leave it unknown whether its counts were stored.
            await asyncio.wait({self._task}, timeout=STOP_SECONDS)
        await self._flush()

    async def _flush_until_empty(self) -> None:
        while self._counts and not self._stop.is_set():
            await self._flush()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(FLUSH_SECONDS):
                    await self._stop.wait()

    async def _flush(self) -> None:
        if not self._counts or self._process.pool is None:
            return
        counts, self._counts = self._counts, {}
        values, self._values = self._values, {}
        try:
            with tracing.use_trace_id(None):
                await self._store(counts, values)
        except BaseException as error:
            # Nothing was stored: the counts are added to the later ones.
            for key, number in counts.items():
                self._counts[key] = self._counts.get(key, 0) + number
                self._values.setdefault(key, values[key])
            if not isinstance(error, (*UNAVAILABLE, asyncpg.PostgresError)):
                raise
            log.warning("refusals by limits are not stored yet: %s", type(error).__name__)

    async def _store(self, counts: dict[Key, int], values: dict[Key, int | None]) -> None:
        service = self._process.service
        assert self._process.pool is not None
        async with act(
            self._process.pool, tenant_id="system", actor=Actor("service", service), service=service
        ) as connection:
            await connection.execute(
                "select ops.record_refusals($1, $2, $3, $4)",
                [tenant_id for tenant_id, _ in counts],
                [limit for _, limit in counts],
                [values[key] for key in counts],
                list(counts.values()),
            )
