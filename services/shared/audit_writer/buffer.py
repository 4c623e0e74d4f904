"""A bounded buffer and the task that empties it: rows that arrive during a write share the next batch."""

import asyncio
import logging
import time
from collections import deque

from services.shared.audit_writer.gaps import BUFFER_FULL, NOWHERE_TO_GO, Keep, Losses
from services.shared.audit_writer.ledger import EventAccount
from services.shared.audit_writer.line import Line

log = logging.getLogger(__name__)

LOG_EVERY_SECONDS = 10.0


class LineBatch:
    """Rows that are written together, with their waiters, under one deadline."""

    __slots__ = ("_timer", "_waiters", "lines", "taken_ns")

    def __init__(self, taken_ns: int) -> None:
        self.lines: list[Line] = []
        self.taken_ns = taken_ns
        self._timer: asyncio.TimerHandle | None = None
        # Each waiter gets its own future: canceling a shared one would cancel every other waiter.
        self._waiters: list[asyncio.Future[bool]] = []

    async def wait(self, seconds: float) -> bool:
        """Return whether the rows are durable; False if that is unknown so many seconds after the first wait began."""
        loop = asyncio.get_running_loop()
        if self._timer is None:
            self._timer = loop.call_later(seconds, self.finish)
        waiter: asyncio.Future[bool] = loop.create_future()
        self._waiters.append(waiter)
        return await waiter

    def finish(self, *, kept: bool = False) -> None:
        """Release the waiters."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(kept)


class Lane:
    """Keeps at most `limit` rows; when it is full, the newest row is lost.

    A flood therefore cannot push out the record of its beginning, and one gap row with two times describes what is
    missing. Not thread-safe: use it on the event loop.
    """

    def __init__(
        self, name: str, keep: Keep, *, limit: int, batch_size: int, account: EventAccount, losses: Losses
    ) -> None:
        self.name = name
        self.written = 0
        self.dropped = 0
        self._keep = keep
        self._limit = limit
        self._batch_size = batch_size
        self._account = account
        self._losses = losses
        self._batches: deque[LineBatch] = deque()
        self._open: LineBatch | None = None
        self._length = 0
        self._wake = asyncio.Event()
        self._stopping = False
        self._task: asyncio.Task[None] | None = None
        self._logged_at = float("-inf")

    def __len__(self) -> int:
        """Return the number of rows not known to be durable yet."""
        return self._length

    def put(self, line: Line) -> LineBatch | None:
        """Add a row to the returned batch; return None if it is lost because the lane is full or has stopped."""
        now_ns = time.time_ns()
        if self._length >= self._limit or (self._stopping and self._task is None):
            self._lose([line], cause=BUFFER_FULL, at_ns=now_ns)
            return None
        batch = self._open
        if batch is None:
            batch = self._open = LineBatch(now_ns)
            self._batches.append(batch)
            self._wake.set()
        batch.lines.append(line)
        self._length += 1
        self._account.take(now_ns)
        if len(batch.lines) >= self._batch_size:
            self._open = None
        return batch

    def start(self) -> None:
        """Start the writing task."""
        self._task = asyncio.create_task(self._run(), name=f"audit-{self.name}")
        self._task.add_done_callback(_report_crash)

    async def stop(self, *, seconds: float) -> list[Line]:
        """Write the remaining rows for at most so many seconds; return those that could not be written."""
        self._stopping = True
        self._wake.set()
        if self._task is not None:
            await asyncio.wait({self._task}, timeout=seconds)
            self._task.cancel()
            # A connection with a vanished peer may hang even after the cancellation.
            await asyncio.wait({self._task}, timeout=1)
            self._task = None
        left = [line for batch in self._batches for line in batch.lines]
        for batch in self._batches:
            batch.finish(kept=False)
        self._batches.clear()
        self._length, self._open = 0, None
        return left

    def give_away(self, count: int) -> None:
        """Count rows that stop() returned and the caller made durable."""
        self.written += count
        self._account.settle(count, next_ns=0)

    async def _run(self) -> None:
        while self._batches or not self._stopping:
            if not self._batches:
                self._wake.clear()
                await self._wake.wait()
                continue
            batch = self._batches[0]
            if batch is self._open:
                self._open = None
            kept = await self._keep(batch.lines)
            self._settle(batch, kept=kept)

    def _settle(self, batch: LineBatch, *, kept: bool) -> None:
        # A row counts against the limit until it is durable.
        self._batches.popleft()
        count = len(batch.lines)
        self._length -= count
        if kept:
            self.written += count
        else:
            self._lose(batch.lines, cause=NOWHERE_TO_GO, at_ns=batch.taken_ns)
        self._account.settle(count, next_ns=self._batches[0].taken_ns if self._batches else 0)
        batch.finish(kept=kept)

    def _lose(self, lines: list[Line], *, cause: str, at_ns: int) -> None:
        self.dropped += len(lines)
        self._losses.add(lines, buffer=self.name, cause=cause, at_ns=at_ns)
        now = time.monotonic()
        if now - self._logged_at > LOG_EVERY_SECONDS:
            self._logged_at = now
            reason = "the writer has stopped" if self._task is None and self._stopping else cause
            log.error("audit events are lost: %s", reason, extra={"buffer": self.name, "dropped": self.dropped})


def _report_crash(task: asyncio.Task[None]) -> None:
    # The writer survives every failure of the database. What ends it is a bug, which must be logged.
    if not task.cancelled() and (error := task.exception()) is not None:
        log.critical("the audit writer has crashed", exc_info=error)
