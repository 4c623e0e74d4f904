"""The open tails of the audit trail, and the one poll of its end that wakes them all.

It polls five times a second instead of using LISTEN, which needs a connection that bypasses the pooler. Without tails
it does not poll.
"""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import asyncpg
from starlette.exceptions import HTTPException

from services.shared.db import ACQUIRE_SECONDS, UNAVAILABLE
from services.shared.server import Process
from services.ui_iot.http.problems import LimitReached
from services.ui_iot.limits.limit_refusals import LimitRefusals

LOOK_SECONDS = 0.2
RETRY_SECONDS = 10
LIMIT = "audit_tails"


@dataclass(slots=True, eq=False)
class Seat:
    """A place among the open tails. is_ended: the tail must end, because another tenant got its place."""

    tenant_id: str
    woken: asyncio.Event = field(default_factory=asyncio.Event)
    is_ended: bool = False


class Tails:
    """Opens at most `most` tails at a time in this process, and at most half as many for one tenant.

    If all are taken, a tenant with fewer tails gets a place of the tenant with most, whose newest tail ends. Its client
    resumes when it reconnects. So other tenants' tails cannot lock a tenant out.
    """

    def __init__(self, process: Process, *, most: int, refusals: LimitRefusals) -> None:
        self._process = process
        self._most = most
        self._refusals = refusals
        # In the order of opening. An ended seat counts for its tenant until its client has left.
        self._seats: dict[Seat, None] = {}
        self._looking: asyncio.Task[None] | None = None

    @property
    def stopping(self) -> bool:
        """The process is stopping, and all tails must end."""
        return self._process.stopping

    @contextmanager
    def open(self, tenant_id: str) -> Iterator[Seat]:
        """Hold a place for a tail. Raises LimitReached if the tenant has its share, or 503 if no place can be freed."""
        share = max(1, self._most // 2)
        if sum(seat.tenant_id == tenant_id for seat in self._seats) >= share:
            self._refusals.count(tenant_id, LIMIT, share)
            raise LimitReached(
                f"A tenant may have {share} tails in one process; the operator of Pulse sets twice as many with "
                "PULSE_AUDIT_MAX_TAILS.",
                limit=LIMIT,
                value=share,
                seconds=RETRY_SECONDS,
            )
        self._make_room(tenant_id)
        seat = Seat(tenant_id)
        self._seats[seat] = None
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look(), name="audit-tails")
        try:
            yield seat
        finally:
            del self._seats[seat]

    def _make_room(self, tenant_id: str) -> None:
        held = Counter(seat.tenant_id for seat in self._seats if not seat.is_ended)
        if held.total() < self._most:
            return
        [(greatest, most)] = held.most_common(1)
        if most <= held[tenant_id] + 1:
            raise HTTPException(
                503, "As many tails are open as there may be.", headers={"Retry-After": str(RETRY_SECONDS)}
            )
        newest = next(seat for seat in reversed(self._seats) if seat.tenant_id == greatest and not seat.is_ended)
        newest.is_ended = True
        newest.woken.set()

    async def _look(self) -> None:
        blocks = None
        while self._seats:
            with contextlib.suppress(*UNAVAILABLE, asyncpg.PostgresError):
                found = await self._count_blocks()
                if found != blocks:
                    blocks = found
                    self._wake()
            if self._process.stopping:
                self._wake()
            await asyncio.sleep(LOOK_SECONDS)

    def _wake(self) -> None:
        for seat in self._seats:
            seat.woken.set()

    async def _count_blocks(self) -> int | None:
        assert self._process.pool is not None
        async with self._process.pool.acquire(timeout=ACQUIRE_SECONDS) as connection:
            blocks: int | None = await connection.fetchval("select tree_size from audit.newest_checkpoint()")
            return blocks
