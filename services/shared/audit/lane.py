"""A bounded buffer and the one task that empties it: what arrives while a batch is written shares the next one."""

import asyncio
import logging
import os
import time
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from services.shared.audit.event import AuditEvent
from services.shared.audit.record import Line, make_line, read_line

log = logging.getLogger(__name__)

LOG_EVERY_SECONDS = 10.0


class Writer(Protocol):
    """Where batches go."""

    async def write(self, lines: Sequence[Line]) -> None:
        """Return when every row is stored."""

    async def settle(self, lines: Sequence[Line]) -> None:
        """The same for rows of another kind than the lane's."""


class Gap:
    """Events that were lost: how many of which type, between which times."""

    def __init__(self) -> None:
        self._by_type: Counter[str] = Counter()
        self._first_at: datetime | None = None
        self._last_at: datetime | None = None

    def add(self, line: Line) -> None:
        """Count one lost event."""
        row = read_line(line)
        at = datetime.fromisoformat(row["timestamp"] or "")
        self._by_type[row["event_type"] or ""] += 1
        self._first_at = min(self._first_at or at, at)
        self._last_at = max(self._last_at or at, at)

    def make_line(self, *, service: str, lane: str) -> Line:
        """The audit.gap row that stands for them."""
        count = self._by_type.total()
        return make_line(
            AuditEvent(
                event_type="audit.gap",
                severity="error",
                message=f"{count} audit events of {service} were lost: the buffer was full",
                details={
                    "count": count,
                    "by_type": dict(self._by_type),
                    "first_at": self._first_at,
                    "last_at": self._last_at,
                    "buffer": lane,
                    "process": os.getpid(),
                },
                actor_type="service",
                actor_id=service,
                trace_id=None,
            ),
            service,
        )


class Lane:
    """Keeps at most `limit` rows; when it is full, the newest is lost.

    The newest and not the oldest: so a flood cannot wash out the record of how it began, and one gap row with two
    times tells what is missing. Not thread-safe: everything happens on the event loop.
    """

    def __init__(self, name: str, writer: Writer, *, service: str, limit: int, batch_size: int) -> None:
        self.name = name
        self.written = 0
        self.dropped = 0
        self._writer = writer
        self._service = service
        self._limit = limit
        self._batch_size = batch_size
        self._buffer: list[Line] = []
        self._gap: Gap | None = None
        self._wake = asyncio.Event()
        self._stopping = False
        self._task: asyncio.Task[None] | None = None
        self._logged_at = float("-inf")

    def __len__(self) -> int:
        """Rows not known to be stored yet."""
        return len(self._buffer)

    def put(self, line: Line) -> bool:
        """Take a row; False when it is lost because the lane is full or has stopped."""
        if len(self._buffer) >= self._limit or (self._stopping and self._task is None):
            self._drop(line)
            return False
        self._buffer.append(line)
        if not self._wake.is_set():
            self._wake.set()
        return True

    def start(self) -> None:
        """Begin to write."""
        self._task = asyncio.create_task(self._run(), name=f"audit-{self.name}")
        self._task.add_done_callback(_report_crash)

    async def stop(self, *, seconds: float) -> int:
        """Write what is left, but no longer than that; returns how many rows could not be written."""
        self._stopping = True
        self._wake.set()
        if self._task is not None:
            await asyncio.wait({self._task}, timeout=seconds)
            self._task.cancel()
            # A connection whose peer vanished may hang even when it is given up.
            await asyncio.wait({self._task}, timeout=1)
            self._task = None
        left = len(self._buffer)
        if left:
            by_type = Counter(read_line(line)["event_type"] for line in self._buffer)
            log.error("audit events lost at stop", extra={"buffer": self.name, "lost": left, "by_type": by_type})
            self.dropped += left
            self._buffer.clear()
        return left

    async def _run(self) -> None:
        while self._buffer or self._gap is not None or not self._stopping:
            if batch := self._buffer[: self._batch_size]:
                await self._writer.write(batch)
                # Only now: until a row is stored it counts against the limit.
                del self._buffer[: len(batch)]
                self.written += len(batch)
            gap, self._gap = self._gap, None
            if gap is not None:
                await self._writer.settle([gap.make_line(service=self._service, lane=self.name)])
            elif not batch and not self._stopping:
                self._wake.clear()
                await self._wake.wait()

    def _drop(self, line: Line) -> None:
        self.dropped += 1
        if self._gap is None:
            self._gap = Gap()
        self._gap.add(line)
        now = time.monotonic()
        if now - self._logged_at > LOG_EVERY_SECONDS:
            self._logged_at = now
            reason = "the writer has stopped" if self._task is None and self._stopping else "the buffer is full"
            log.error("audit events are lost: %s", reason, extra={"buffer": self.name, "dropped": self.dropped})


def _report_crash(task: asyncio.Task[None]) -> None:
    # The writer copes with every failure of the database; what ends it is a fault of ours and must not pass in silence.
    if not task.cancelled() and (error := task.exception()) is not None:
        log.critical("the audit writer has crashed", exc_info=error)
