"""The task behind the lanes: it tells floods and gaps, empties the spool, and looks after what dead processes left."""

import asyncio
import logging
import time

from services.shared import db
from services.shared.audit.drain import Drain
from services.shared.audit.flood import Flood
from services.shared.audit.losses import Keep, Losses

log = logging.getLogger(__name__)

ADOPT_SECONDS = 30.0
SHORTEST_RETRY_SECONDS = 0.1
LONGEST_RETRY_SECONDS = 1.0


class Keeper:
    """Sleeps until there is something to do."""

    def __init__(self, drain: Drain, *, flood: Flood, losses: Losses, events: Keep, refusals: Keep) -> None:
        self._drain = drain
        self._flood = flood
        self._losses = losses
        self._keep_events = events
        self._keep_refusals = refusals
        self._wake = asyncio.Event()
        self._stopping = False
        self._adopt_at = 0.0
        self._task: asyncio.Task[None] | None = None

    def wake(self) -> None:
        """There is something to do."""
        self._wake.set()

    def start(self) -> None:
        """Begin, with a look for what an earlier process left."""
        self._task = asyncio.create_task(self._run(), name="audit-keeper")

    async def stop(self, *, seconds: float) -> None:
        """End."""
        self._stopping = True
        self._wake.set()
        if self._task is not None:
            await asyncio.wait({self._task}, timeout=seconds)
            self._task.cancel()
            await asyncio.wait({self._task}, timeout=1)

    async def tell(self, *, everything: bool = False) -> bool:
        """Write the rows of floods that are over and of events that were lost; False when some must be told later."""
        due = self._flood.take_due(everything=everything)
        if due:
            lines = [line for line, _ in due]
            if not await self._keep_refusals(lines):
                # Their numbers live on in a gap.
                self._losses.add(lines, buffer="auth_failures", cause="blocked", at_ns=time.time_ns())
            self._flood.settle(sum(count for _, count in due))
        return await self._losses.tell(self._keep_events)

    async def _run(self) -> None:
        retry_seconds = SHORTEST_RETRY_SECONDS
        while not self._stopping:
            self._wake.clear()
            done = False
            try:
                done = await self._work()
            except (*db.UNAVAILABLE, OSError) as error:
                log.warning("the audit spool is not drained: %s", error or type(error).__name__)
            except Exception:
                log.exception("the audit keeper failed")
            if done:
                retry_seconds = SHORTEST_RETRY_SECONDS
                await self._sleep(self._idle_seconds(), self._wake)
            else:
                await self._sleep(retry_seconds, None)
                retry_seconds = min(LONGEST_RETRY_SECONDS, 2 * retry_seconds)

    async def _work(self) -> bool:
        """One round; False when something is left to do that could not be done now."""
        told = await self.tell()
        if not await self._drain.drain_own():
            return False
        if time.monotonic() >= self._adopt_at:
            if not await self._drain.adopt():
                return False
            self._adopt_at = time.monotonic() + ADOPT_SECONDS
        return told

    def _idle_seconds(self) -> float:
        due = self._flood.next_seconds()
        adopt = max(0.0, self._adopt_at - time.monotonic())
        return adopt if due is None else min(due, adopt)

    async def _sleep(self, seconds: float, wake: asyncio.Event | None) -> None:
        """Until the time is over, or earlier when woken; at stop at once."""
        if wake is not None:
            try:
                async with asyncio.timeout(seconds):
                    await wake.wait()
            except TimeoutError:
                pass
        elif not self._stopping:
            await asyncio.sleep(seconds)
