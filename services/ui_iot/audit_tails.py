"""Which tails of the audit trail are open, and the one look at its end that wakes them all.

A look each fifth of a second, not LISTEN: it works through a pooler too and costs nothing while nobody tails.
"""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import asyncpg
from starlette.exceptions import HTTPException

from services.shared.db import ACQUIRE_SECONDS, UNAVAILABLE
from services.shared.server import Process

LOOK_SECONDS = 0.2
RETRY_SECONDS = 10


class Tails:
    """At most `most` at a time in this process, of which one tenant has at most half."""

    def __init__(self, process: Process, *, most: int) -> None:
        self._process = process
        self._most = most
        self._of_tenant: Counter[str] = Counter()
        self._wakers: set[asyncio.Event] = set()
        self._looking: asyncio.Task[None] | None = None

    @property
    def stopping(self) -> bool:
        """Whether the process stops, and every tail with it."""
        return self._process.stopping

    @contextmanager
    def open(self, tenant_id: str) -> Iterator[asyncio.Event]:
        """A place among the tails and the event that wakes it; raises HTTPException 503 when all are taken."""
        if len(self._wakers) >= self._most or self._of_tenant[tenant_id] >= max(1, self._most // 2):
            raise HTTPException(
                503, "As many tails are open as there may be.", headers={"Retry-After": str(RETRY_SECONDS)}
            )
        waker = asyncio.Event()
        self._wakers.add(waker)
        self._of_tenant[tenant_id] += 1
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look(), name="audit-tails")
        try:
            yield waker
        finally:
            self._wakers.remove(waker)
            self._of_tenant -= Counter((tenant_id,))  # which forgets those that have none

    async def _look(self) -> None:
        blocks = None
        while self._wakers:
            with contextlib.suppress(*UNAVAILABLE, asyncpg.PostgresError):
                found = await self._count_blocks()
                if found != blocks:
                    blocks = found
                    self._wake()
            if self._process.stopping:
                self._wake()
            await asyncio.sleep(LOOK_SECONDS)

    def _wake(self) -> None:
        for waker in self._wakers:
            waker.set()

    async def _count_blocks(self) -> int | None:
        assert self._process.pool is not None
        async with self._process.pool.acquire(timeout=ACQUIRE_SECONDS) as connection:
            blocks: int | None = await connection.fetchval("select tree_size from audit.newest_checkpoint()")
            return blocks
