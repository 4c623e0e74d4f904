"""One process's directory of the spool: append-only segments below a lock that the kernel drops when the process dies.

    spool/                      0700, shared by the processes that write to one database
    spool/ui_iot-4711-9f3c/     0700, held by flock while its process lives
        00000001.spool          0600, a segment: a magic, then one record a row: 0xff, its length, its CRC-32, the row
        00000002.spool.corrupt  kept aside for people: a record in its middle could not be read
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
    """Bytes of a segment that are no record, with records behind them."""

    offset: int
    length: int


class Contents(NamedTuple):
    """What a segment holds; what a crash left unfinished at its end is in neither."""

    lines: Sequence[Line]
    damages: Sequence[Damage]


def encode_lines(lines: Sequence[Line]) -> bytes:
    """Rows as records."""
    parts: list[bytes] = []
    for line in lines:
        payload = line.encode()
        parts += (_HEADER.pack(_MARK, len(payload), _checksum(payload)), payload)
    return b"".join(parts)


def read_segment(file: Path) -> Contents:
    """The rows of a segment in their order, and where it is damaged. The file's end may be torn: that is no damage."""
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
    # The length is covered too: a shorter record must not pass for a whole one.
    return zlib.crc32(payload, zlib.crc32(_LENGTH.pack(len(payload))))


class SpoolFull(OSError):
    """The spool has the size it may have."""


class SpoolDirectory:
    """Takes rows durably, gives them back in order. Not for use by several threads at once."""

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
        """A new directory, locked. Raises OSError."""
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        for _ in range(MOST_TRIES):
            path = root / f"{service}-{os.getpid()}-{secrets.token_hex(4)}"
            path.mkdir(mode=0o700)
            lock = _lock(path)
            if lock is not None:
                _sync_directory(root, sync)
                return cls(path, lock, sync=sync)
            # Somebody looked for dead processes in between, took it for one and removes it.
            with contextlib.suppress(OSError):
                path.rmdir()
        raise OSError(errno.ENOLCK, "no directory of the spool can be locked")

    @classmethod
    def adopt(cls, path: Path) -> "SpoolDirectory | None":
        """What a dead process left, locked; None when it lives, left nothing, or somebody else was faster."""
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
        """Return when the rows are on the disk. Raises OSError, and then none of them is there to be read again."""
        content = encode_lines(lines)
        if self.size + len(content) + len(MAGIC) > limit:
            raise SpoolFull(f"the spool may have {limit} bytes")
        if self._active is not None and self._good_size + len(content) > SEGMENT_BYTES:
            self.rotate()
        if self._active is None:
            self._open_segment()
        assert self._active is not None
        try:
            _write_all(self._active, content)
            self._sync(self._active)
        except OSError:
            # What was written may be half there, and what a failed fsync leaves nobody knows: back to what is sure, and
            # never again into this file.
            with contextlib.suppress(OSError):
                os.ftruncate(self._active, self._good_size)
            self.rotate()
            raise
        self._good_size += len(content)
        self.size += len(content)
        self.records += len(lines)

    def rotate(self) -> None:
        """End the segment that is written to; the next rows open another."""
        if self._active is not None:
            os.close(self._active)
            self._active = None

    def segments(self) -> list[Path]:
        """All segments that are not written to any more, oldest first."""
        self.rotate()
        return sorted(self.path.glob(f"*{SUFFIX}"))

    def remove(self, file: Path, records: int) -> None:
        """Forget a segment whose rows are stored."""
        self._subtract(file, records)
        file.unlink()

    def set_aside(self, file: Path, records: int) -> None:
        """The same for a segment with damage in it, which people may want to look at."""
        self._subtract(file, records)
        file.rename(file.with_name(file.name + CORRUPT_SUFFIX))

    def forget_ledger(self) -> None:
        """Remove the ledger: it balances, or what it says stands in the trail."""
        (self.path / LEDGER).unlink(missing_ok=True)

    def close(self) -> None:
        """Give up the lock; the directory goes when nothing is left in it."""
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
    """A handle that holds the directory's lock; None when another process holds it or removed the directory."""
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


def _sync_directory(path: Path, sync: Sync) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        sync(handle)
    finally:
        os.close(handle)
