"""The spool for the event loop: file work runs in order in one thread, and every wait is bounded."""

import asyncio
import contextlib
import logging
import os
import re
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from services.shared.audit_writer.ledger import LEDGER_BYTES, EventLedger, stock_reserve
from services.shared.audit_writer.line import Line
from services.shared.audit_writer.spool_directory import SpoolDirectory, Sync

log = logging.getLogger(__name__)

T = TypeVar("T")

_NAME = re.compile(r".+-\d+-[0-9a-f]{8}")

# A disk that has not answered by then counts as failed; the thread may finish later.
DISK_SECONDS = 2.0


class Spool:
    """The spool of this process, with its ledger."""

    def __init__(
        self, root: Path, *, service: str, limit: int, sync: Sync = os.fsync, seconds: float = DISK_SECONDS
    ) -> None:
        self.root = root
        self.seconds = seconds
        self.spooled = 0
        self.directory: SpoolDirectory | None = None
        self._limit = limit
        self._others = 0
        self._service = service
        self._sync = sync
        self._disk = ThreadPoolExecutor(1, thread_name_prefix="audit-spool")
        self._late: asyncio.Future[Any] | None = None
        self._failing = False
        self.ledger = self._open()

    def _open(self) -> EventLedger:
        try:
            self.directory = SpoolDirectory.create(self.root, self._service, sync=self._sync)
            return EventLedger(self.directory.path, self._service)
        except OSError as error:
            log.error(  # noqa: TRY400  # an operator needs no traceback
                "no audit spool in %s: %s", self.root, error.strerror or error
            )
            return EventLedger(None, self._service)

    @property
    def is_usable(self) -> bool:
        """True if the spool has a directory that took the last rows."""
        return self.directory is not None and not self._failing

    @property
    def records(self) -> int:
        """Number of rows."""
        return self.directory.records if self.directory else 0

    @property
    def size(self) -> int:
        """Number of bytes."""
        return self.directory.size if self.directory else 0

    async def append(self, lines: Sequence[Line]) -> bool:
        """Return True once the rows are on disk; False if the disk is full, fails or does not answer."""
        directory = self.directory
        if directory is None or (self._late is not None and not self._late.done()):
            return False
        try:
            await self.run(directory.append, lines, self._limit - self._others)
        except OSError as error:
            if not self._failing:
                log.error("the audit spool cannot be written: %s", error.strerror or error)  # noqa: TRY400  # as above
            self._failing = True
            return False
        self._failing = False
        self.spooled += len(lines)
        self.ledger.accounts["spooled"].take(time.time_ns(), len(lines))
        return True

    async def run(self, work: Callable[..., T], *arguments: object, seconds: float | None = None) -> T:
        """Run file work in order and return its result. Raises the work's exceptions, and TimeoutError."""
        future = asyncio.get_running_loop().run_in_executor(self._disk, work, *arguments)
        done, _ = await asyncio.wait({future}, timeout=seconds or self.seconds)
        if not done:
            future.add_done_callback(_forget)
            self._late = future
            raise TimeoutError("the disk does not answer")
        return future.result()

    async def stock_reserve(self) -> None:
        """Stock the reserve of ledger files, as far as the disk has room."""
        if self.directory is not None:
            await self.run(stock_reserve, self.root, LEDGER_BYTES)

    async def measure_others(self) -> None:
        """Measure the directories of other processes, which share the limit."""
        if self.directory is not None:
            own = self.directory.path
            self._others = await self.run(size_of, self.root, own)

    async def close(self) -> None:
        """Release the directory; another process adopts its remaining rows and an unbalanced ledger."""
        directory, self.directory = self.directory, None
        if directory is not None:
            with contextlib.suppress(OSError):
                if not self.ledger.outstanding:
                    await self.run(directory.forget_ledger)
                await self.run(directory.close)
            self.ledger.close()
        self._disk.shutdown(wait=False)


def directories(root: Path) -> list[Path]:
    """Return the directories of all processes, dead or alive."""
    try:
        return sorted(entry for entry in root.iterdir() if _NAME.fullmatch(entry.name) and entry.is_dir())
    except OSError:
        return []


def size_of(root: Path, without: Path) -> int:
    """Return the bytes in all directories but one."""
    total = 0
    for directory in directories(root):
        if directory != without:
            with contextlib.suppress(OSError):
                total += sum(entry.stat().st_size for entry in directory.iterdir())
    return total


def _forget(future: "asyncio.Future[T]") -> None:
    if not future.cancelled():
        future.exception()
