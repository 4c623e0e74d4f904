"""Disk of the audit spool: a small file system that can be filled, if the kernel permits one."""

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

TMPFS_BYTES = 1 << 20
# Limit of the spool without its own disk, which a few seconds without the database fill.
SMALL_SPOOL_BYTES = 8 * 1024
_PAGE_BYTES = 4096

_NEW_MOUNTS = 0x00020000  # CLONE_NEWNS
_PRIVATE = 1 << 18 | 1 << 14  # MS_PRIVATE | MS_REC
_NO_PROGRAMS = 2 | 4 | 8  # MS_NOSUID | MS_NODEV | MS_NOEXEC
_DETACH = 2  # MNT_DETACH


@dataclass(frozen=True, slots=True)
class SpoolDisk:
    """Place of the spool. can_fill: it has its own disk. Otherwise the limit of the spool is small."""

    path: Path
    can_fill: bool

    @property
    def spool_bytes(self) -> int:
        """Limit of the spool in bytes, large if the disk is the limit."""
        return 64 << 20 if self.can_fill else SMALL_SPOOL_BYTES

    def fill(self, *, spare_pages: int) -> None:
        """Fill the disk except for some pages."""
        with (self.path / ".filling").open("wb", buffering=0) as filling:
            written = 0
            try:
                while True:
                    written += filling.write(bytes(_PAGE_BYTES))
            except OSError:
                filling.truncate(max(0, written - spare_pages * _PAGE_BYTES))

    def empty(self) -> None:
        """Free the disk."""
        (self.path / ".filling").unlink(missing_ok=True)

    def leftovers(self) -> list[str]:
        """Return the remaining files: events, damaged parts that were set aside, ledgers that do not balance."""
        return [str(path.relative_to(self.path)) for path in self.path.glob("*/*") if path.is_file()]


@contextmanager
def spool_disk(path: Path) -> Iterator[SpoolDisk]:
    """Mount a disk for the spool that only this process and its children see, until the last one ends.

    Call it before any thread is started, because each thread has its own mount namespace.
    """
    path.mkdir(mode=0o700)
    libc = ctypes.CDLL(None, use_errno=True)
    can_fill = (
        os.geteuid() == 0
        and libc.unshare(_NEW_MOUNTS) == 0
        and libc.mount(b"none", b"/", None, _PRIVATE, None) == 0
        and libc.mount(b"tmpfs", os.fsencode(path), b"tmpfs", _NO_PROGRAMS, f"size={TMPFS_BYTES},mode=700".encode())
        == 0
    )
    try:
        yield SpoolDisk(path, can_fill)
    finally:
        if can_fill:
            libc.umount2(os.fsencode(path), _DETACH)
