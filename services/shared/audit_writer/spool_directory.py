"""The spool directory of a process: append-only segments under a lock that the kernel releases when the process dies.

    spool/                      0700, shared by the processes that write to one database
    spool/ui_iot-4711-9f3c/     0700, held by flock while its process lives
        00000001.spool          0600, a segment: a magic, then one record a row: 0xff, its length, its CRC-32, the row
        00000002.spool.corrupt  set aside for inspection: a record in its middle could not be read
        ledger                  see ledger

UTF-8 never holds the byte 0xff, so after damage the next record is found by searching for it. Every call blocks: run
it in a thread.
"""

import contextlib
import errno
import fcntl
import os
import secrets
import struct
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from services.shared.audit_writer.ledger import FILE_NAME as LEDGER
from services.shared.audit_writer.line import Line
from services.shared.write_once import sync_names

# Rows have the columns line.COLUMNS. A change of those counts this up, and both are read for one release.
MAGIC = b"PULSPOOL1\n"
LONGEST_RECORD = 1 << 20
SEGMENT_BYTES = 8 << 20
MOST_TRIES = 10
SUFFIX = ".spool"
CORRUPT_SUFFIX = ".corrupt"
_MARK = b"\xff"
_HEADER = struct.Struct("<cII")
_LENGTH = struct.Struct("<I")

Sync = Callable[[int], None]


class Damage(NamedTuple):
    """Unreadable bytes of a segment, followed by records."""

    offset: int
    length: int


class Contents(NamedTuple):
    """The content of a segment, without an unfinished record at its end."""

    lines: Sequence[Line]
    damages: Sequence[Damage]


def encode_lines(lines: Sequence[Line]) -> bytes:
    """Return rows as records."""
    parts: list[bytes] = []
    for line in lines:
        payload = line.encode()
        parts += (_HEADER.pack(_MARK, len(payload), _checksum(payload)), payload)
    return b"".join(parts)


def read_segment(file: Path) -> Contents:
    """Return the rows of a segment in order, and its damaged places. A torn end is no damage."""
    content = file.read_bytes()
    lines: list[Line] = []
    damages: list[Damage] = []
    at = len(MAGIC) if content.startswith(MAGIC) else 0
    bad_from: int | None = None
    while 0 <= at < len(content):
        payload = _payload_at(content, at)
        if payload is None:
            bad_from = at if bad_from is None else bad_from
            at = content.find(_MARK, at + 1)
            continue
        if bad_from is not None:
            damages.append(Damage(bad_from, at - bad_from))
            bad_from = None
        lines.append(Line(payload.decode()))
        at += _HEADER.size + len(payload)
    return Contents(lines, damages)


def _payload_at(content: bytes, at: int) -> bytes | None:
    if at + _HEADER.size > len(content):
        return None
    mark, length, checksum = _HEADER.unpack_from(content, at)
    start = at + _HEADER.size
    if mark != _MARK or not 0 < length <= LONGEST_RECORD or start + length > len(content):
        return None
    payload = content[start : start + length]
    return payload if _checksum(payload) == checksum else None


def _checksum(payload: bytes) -> int:
    # The checksum covers the length, so that a shorter record cannot pass for a whole one.
    return zlib.crc32(payload, zlib.crc32(_LENGTH.pack(len(payload))))


class SpoolFull(OSError):
    """Raised if the spool has reached its size limit."""


class SpoolDirectory:
    """Stores rows durably and returns them in order. Not thread-safe."""

    def __init__(self, path: Path, lock: int, *, sync: Sync = os.fsync) -> None:
        self.path = path
        self.records = 0
        self.size = 0
        self._lock = lock
        self._sync = sync
        self._number = 0
        self._active: int | None = None
        self._good_size = 0

    @classmethod
    def create(cls, root: Path, service: str, *, sync: Sync = os.fsync) -> "SpoolDirectory":
        """Create and lock a new directory. Raises OSError."""
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        for _ in range(MOST_TRIES):
            path = root / f"{service}-{os.getpid()}-{secrets.token_hex(4)}"
            path.mkdir(mode=0o700)
            lock = _lock(path)
            if lock is not None:
                sync_names(root, sync)
                return cls(path, lock, sync=sync)
            # Another process found it unlocked, took its owner for dead and removes it.
            with contextlib.suppress(OSError):
                path.rmdir()
        raise OSError(errno.ENOLCK, "no directory of the spool can be locked")

    @classmethod
    def adopt(cls, path: Path) -> "SpoolDirectory | None":
        """Lock the directory of a dead process; return None if it lives, left nothing or was adopted by another."""
        lock = _lock(path)
        if lock is None:
            return None
        adopted = cls(path, lock)
        segments = adopted.segments()
        if not segments and not (path / LEDGER).exists():
            adopted.close()
            return None
        adopted.size = sum(file.stat().st_size for file in segments)
        return adopted

    def append(self, lines: Sequence[Line], limit: int) -> None:
        """Return once the rows are on disk. After an OSError, none of the rows is in the segment."""
        content = encode_lines(lines)
        if self.size + len(content) + len(MAGIC) > limit:
            raise SpoolFull(f"the spool is limited to {limit} bytes")
        if self._active is not None and self._good_size + len(content) > SEGMENT_BYTES:
            self.rotate()
        if self._active is None:
            self._open_segment()
        assert self._active is not None
        try:
            _write_all(self._active, content)
            self._sync(self._active)
        except OSError:
            # A failed write may be partial, and the state after a failed fsync is unknown. Return to the last good size
            # and never write to this file again.
            with contextlib.suppress(OSError):
                os.ftruncate(self._active, self._good_size)
            self.rotate()
            raise
        self._good_size += len(content)
        self.size += len(content)
        self.records += len(lines)

    def rotate(self) -> None:
        """Close the open segment; the next rows start another."""
        if self._active is not None:
            os.close(self._active)
            self._active = None

    def segments(self) -> list[Path]:
        """Close the open segment and return every segment, oldest first."""
        self.rotate()
        return sorted(self.path.glob(f"*{SUFFIX}"))

    def remove(self, file: Path, records: int) -> None:
        """Remove a segment whose rows are stored."""
        self._subtract(file, records)
        file.unlink()

    def set_aside(self, file: Path, records: int) -> None:
        """Rename a damaged segment whose rows are stored, to keep it for inspection."""
        self._subtract(file, records)
        file.rename(file.with_name(file.name + CORRUPT_SUFFIX))

    def forget_ledger(self) -> None:
        """Remove the ledger, which balances or whose losses are recorded."""
        (self.path / LEDGER).unlink(missing_ok=True)

    def close(self) -> None:
        """Remove the directory if it is empty, and release the lock."""
        self.rotate()
        with contextlib.suppress(OSError):
            self.path.rmdir()
        os.close(self._lock)

    def _subtract(self, file: Path, records: int) -> None:
        self.size = max(0, self.size - file.stat().st_size)
        self.records = max(0, self.records - records)

    def _open_segment(self) -> None:
        self._number += 1
        file = self.path / f"{self._number:08d}{SUFFIX}"
        handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            _write_all(handle, MAGIC)
            self._sync(self._lock)  # its entry in the directory
        except OSError:
            os.close(handle)
            file.unlink(missing_ok=True)
            raise
        self._active, self._good_size = handle, len(MAGIC)
        self.size += self._good_size


def _lock(path: Path) -> int | None:
    """Return a handle that holds the lock; None if another process holds it or removed the directory."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if path.stat(follow_symlinks=False).st_ino == os.fstat(handle).st_ino:
            return handle
    except OSError:
        pass
    os.close(handle)
    return None


def _write_all(handle: int, content: bytes) -> None:
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(handle, rest) :]
