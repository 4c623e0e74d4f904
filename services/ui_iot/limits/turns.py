"""Turns at expensive work: pieces that block the event loop, and reads of traces that hold connections."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final, TypeVar

from services.ui_iot.http.problems import LimitReached
from services.ui_iot.limits.limit_refusals import LimitRefusals

T = TypeVar("T")

_ROUNDS = 8
"""Passes of the event loop between two pieces of work. A request on a new connection needs at most six."""
# Traces that this process reads at a time, at most one of a tenant.
MOST_AT_A_TIME: Final = 2
# Requests of one tenant that wait or run.
MOST_OF_TENANT: Final = 8
RETRY_SECONDS: Final = 2
LIMIT: Final = "trace_lookups"


class Turns:
    """Runs one piece of work at a time, and other tasks of the event loop in between."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()

    async def take(self, work: Callable[[], T]) -> T:
        """Wait for a turn and return the result of work."""
        async with self._lock:
            try:
                return work()
            finally:
                for _ in range(_ROUNDS):
                    await asyncio.sleep(0)


@dataclass(slots=True)
class _Queue:
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    length: int = 0


class Timelines:
    """Reads of traces. One tenant never has both places, and waiting tenants take turns."""

    def __init__(self, refusals: LimitRefusals) -> None:
        self._refusals = refusals
        self._places = asyncio.Semaphore(MOST_AT_A_TIME)
        self._queues: dict[str, _Queue] = {}

    @asynccontextmanager
    async def turn(self, tenant_id: str) -> AsyncIterator[None]:
        """Wait for a turn of the tenant. Raises LimitReached if too many of its requests wait."""
        queue = self._queues.setdefault(tenant_id, _Queue())
        if queue.length >= MOST_OF_TENANT:
            self._refusals.count(tenant_id, LIMIT, MOST_OF_TENANT)
            raise LimitReached(
                f"{MOST_OF_TENANT} look-ups of traces are waiting for this tenant already.",
                limit=LIMIT,
                value=MOST_OF_TENANT,
                seconds=RETRY_SECONDS,
            )
        queue.length += 1
        try:
            async with queue.lock, self._places:
                yield
        finally:
            queue.length -= 1
            if not queue.length:
                del self._queues[tenant_id]
