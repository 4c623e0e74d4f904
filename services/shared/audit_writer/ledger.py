"""Counts of the events that a process has taken and not yet made durable, in a small file that survives its death.

The file is mapped into memory: an update is a store, not a system call. After a kill -9 the last values are in the page
cache; a power cut may leave older ones. A few files of the ledger's size are kept in reserve: a process that starts
while the disk is full takes one, so that its losses are still counted.
"""

import contextlib
import errno
import mmap
import os
import struct
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

from services.shared.audit_writer.event import new_event_id

FILE_NAME = "ledger"
ACCOUNTS = ("events", "auth_failures", "telemetry", "lost", "aggregated", "spooled", "reads")
LEDGER_BYTES = 4096
# Number of processes that can start while the disk is full.
RESERVE_FILES = 8
_MAGIC = b"PULSLED1"
_HEADER = struct.Struct("<8s16sQ64s")
_ACCOUNTS_AT = 256
_WORDS = 4  # taken, settled, first_ns, last_ns


def stock_reserve(root: Path, size: int) -> None:
    """Create the missing reserve files, as far as the disk has room."""
    for number in range(RESERVE_FILES):
        file = root / f".reserve-{number}"
        if file.exists():
            continue
        try:
            handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except OSError:
            return
        try:
            # Write real bytes: a store into a hole of a file on a full disk ends the process with SIGBUS.
            whole = os.write(handle, bytes(size)) == size
            os.fsync(handle)
        except OSError:
            whole = False
        finally:
            os.close(handle)
        if not whole:
            file.unlink(missing_ok=True)
            return


def take_reserve(root: Path, file: Path) -> bool:
    """Rename a reserve file to `file`; return False if none is left. Each file serves one process."""
    for number in range(RESERVE_FILES):
        with contextlib.suppress(OSError):
            (root / f".reserve-{number}").rename(file)
            return True
    return False


class EventAccount:
    """Counts events of one kind from their arrival until they are durable or counted elsewhere."""

    __slots__ = ("_at", "_outstanding", "_settled", "_taken", "_words")

    def __init__(self, words: "memoryview[int]", at: int) -> None:
        self._words: memoryview[int] | list[int] = words
        self._at = at
        self._taken = self._settled = self._outstanding = 0

    def take(self, at_ns: int, count: int = 1) -> None:
        """Count events that happened at that time (nanoseconds since 1970)."""
        words, at = self._words, self._at
        if not self._outstanding:
            words[at + 2] = at_ns
        self._outstanding += count
        self._taken += count
        words[at + 3] = at_ns
        words[at] = self._taken

    def settle(self, count: int, *, next_ns: int | None = None) -> None:
        """Release so many events. next_ns: the time at which the oldest remaining event was taken."""
        self._outstanding -= count
        self._settled += count
        if next_ns is not None:
            self._words[self._at + 2] = next_ns
        self._words[self._at + 1] = self._settled

    def detach(self) -> None:
        """Continue in plain memory, because the file is about to be closed."""
        self._words = list(self._words)

    @property
    def outstanding(self) -> int:
        """Number of events that would be lost if the process died now."""
        return self._outstanding


class EventLedger:
    """The accounts of this process; in plain memory without a directory."""

    def __init__(self, directory: Path | None, service: str) -> None:
        if directory is None:
            self._map = mmap.mmap(-1, LEDGER_BYTES)
        else:
            self._map = _make_file(directory / FILE_NAME, service)
        self._words = memoryview(self._map)[_ACCOUNTS_AT:].cast("Q")
        self.accounts = {name: EventAccount(self._words, number * _WORDS) for number, name in enumerate(ACCOUNTS)}

    @property
    def outstanding(self) -> int:
        """Number of events that would be lost if the process died now."""
        return sum(account.outstanding for account in self.accounts.values())

    def close(self) -> None:
        """Close the file; later counts are kept in plain memory."""
        for account in self.accounts.values():
            account.detach()
        self._words.release()
        self._map.close()


def _make_file(file: Path, service: str) -> mmap.mmap:
    header = _HEADER.pack(_MAGIC, new_event_id().bytes, os.getpid(), service.encode()[:64])
    try:
        return _map_file(file, header.ljust(LEDGER_BYTES, b"\0"), os.O_CREAT | os.O_EXCL)
    except OSError:
        file.unlink(missing_ok=True)
        if not take_reserve(file.parent.parent, file):
            raise
        return _map_file(file, header, 0)


def _map_file(file: Path, content: bytes, flags: int) -> mmap.mmap:
    handle = os.open(file, os.O_RDWR | os.O_CLOEXEC | flags, 0o600)
    try:
        # Write real bytes: a store into a hole of a file on a full disk ends the process with SIGBUS.
        if os.write(handle, content) < len(content):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.fsync(handle)
        return mmap.mmap(handle, LEDGER_BYTES)
    finally:
        os.close(handle)


@dataclass(frozen=True, slots=True)
class Remains:
    """The outstanding events in the ledger of a dead process."""

    event_id: UUID
    process: int
    service: str
    counts: dict[str, int]
    first_at: datetime
    last_at: datetime

    def without_spooled(self, found: int) -> "Remains | None":
        """Return the remains without the rows found in the segments; None if nothing is missing."""
        missing = max(0, self.counts.get("spooled", 0) - found)
        others = {name: count for name, count in self.counts.items() if name != "spooled"}
        counts = {**others, "spooled": missing} if missing else others
        return replace(self, counts=counts) if counts else None


def read_remains(directory: Path) -> Remains | None:
    """Return the outstanding events of a dead process; None without any, or without a readable ledger."""
    try:
        content = (directory / FILE_NAME).read_bytes()
        magic, event_id, process, service = _HEADER.unpack_from(content)
        words = struct.unpack_from(f"<{len(ACCOUNTS) * _WORDS}Q", content, _ACCOUNTS_AT)
    except (OSError, struct.error):
        return None
    if magic != _MAGIC:
        return None
    rows = [words[start : start + _WORDS] for start in range(0, len(words), _WORDS)]
    unsettled = {name: row for name, row in zip(ACCOUNTS, rows, strict=True) if row[0] > row[1]}
    if not unsettled:
        return None
    return Remains(
        UUID(bytes=event_id),
        process,
        service.rstrip(b"\0").decode("utf-8", "replace"),
        {name: row[0] - row[1] for name, row in unsettled.items()},
        _time(min(row[2] for row in unsettled.values())),
        _time(max(row[3] for row in unsettled.values())),
    )


def _time(at_ns: int) -> datetime:
    """Return the time, or the present time if the ledger has none."""
    return datetime.fromtimestamp((at_ns or time.time_ns()) / 1e9, UTC)
