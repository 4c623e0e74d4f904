"""The background task: it writes due aggregates and gap rows, empties the spool and adopts dead processes' spools."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Mapping

from services.shared import db
from services.shared.audit_writer.aggregation import Windows
from services.shared.audit_writer.drain import Drain
from services.shared.audit_writer.gaps import NOWHERE_TO_GO, Keep, Losses

log = logging.getLogger(__name__)

ADOPT_SECONDS = 30.0
ROUND_SECONDS = 0.1
LONGEST_RETRY_SECONDS = 1.0


class Keeper:
    """Runs the background work when something is due."""

    def __init__(self, drain: Drain, *, windows: Mapping[Windows, Keep], losses: Losses, events: Keep) -> None:
        """Set up the task. windows: each aggregation with the function that stores its rows."""
        self._drain = drain
        self._windows = windows
        self._losses = losses
        self._keep_events = events
        self._wake = asyncio.Event()
        self._stop = asyncio.Event()
        self._adopt_at = 0.0
        self._task: asyncio.Task[None] | None = None

    def wake(self) -> None:
        """Start a round now."""
        self._wake.set()

    def start(self) -> None:
        """Start the task, which first looks for the spools of dead processes."""
        self._task = asyncio.create_task(self._run(), name="audit-keeper")

    async def stop(self, *, seconds: float) -> None:
        """Stop the task within about so many seconds."""
        self._stop.set()
        self._wake.set()
        if self._task is not None:
            await asyncio.wait({self._task}, timeout=seconds)
            self._task.cancel()
            await asyncio.wait({self._task}, timeout=1)

    async def write_due(self, *, everything: bool = False) -> bool:
        """Write the rows of ended windows and of lost events; return False if some must be written later."""
        for windows, keep in self._windows.items():
            await self._write_aggregates(windows, keep, everything=everything)
        return await self._losses.report(self._keep_events)

    async def _write_aggregates(self, windows: Windows, keep: Keep, *, everything: bool) -> None:
        due = windows.take_due(everything=everything)
        if not due:
            return
        lines = [line for line, _ in due]
        if not await keep(lines):
            # A gap row reports their counts.
            self._losses.add(lines, buffer=windows.buffer, cause=NOWHERE_TO_GO, at_ns=time.time_ns())
        windows.settle(sum(count for _, count in due))

    async def _run(self) -> None:
        retry_seconds = ROUND_SECONDS
        while not self._stop.is_set():
            self._wake.clear()
            if await self._round():
                retry_seconds = ROUND_SECONDS
                # Handle a storm of wake-ups together.
                await _wait(self._stop, ROUND_SECONDS)
                await _wait(self._wake, self._idle_seconds())
            else:
                await _wait(self._stop, retry_seconds)
                retry_seconds = min(LONGEST_RETRY_SECONDS, 2 * retry_seconds)

    async def _round(self) -> bool:
        """Do the due work; return False if some must be repeated."""
        try:
            reported = await self.write_due()
            if not await self._drain.drain_own():
                return False
            if self._drain.has_own:
                self.wake()
            elif time.monotonic() >= self._adopt_at:
                if not await self._drain.adopt():
                    return False
                self._adopt_at = time.monotonic() + ADOPT_SECONDS
        except (*db.UNAVAILABLE, OSError) as error:
            log.warning("the audit spool is not drained: %s", error or type(error).__name__)
            return False
        except Exception:
            log.exception("the audit keeper failed")
            return False
        return reported

    def _idle_seconds(self) -> float:
        adopt = max(0.0, self._adopt_at - time.monotonic())
        dues = (windows.next_seconds() for windows in self._windows)
        return min(adopt, *(due for due in dues if due is not None), adopt)


async def _wait(event: asyncio.Event, seconds: float) -> None:
    """Wait until the event is set, for at most so many seconds."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
