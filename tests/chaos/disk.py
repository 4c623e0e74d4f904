"""The disk that the audit spool is on: a small one of its own that can be filled, where the kernel lets us have it."""

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

TMPFS_BYTES = 1 << 20
# Where no disk of our own can be had: what a few seconds without the database fill.
SMALL_SPOOL_BYTES = 8 * 1024
_PAGE_BYTES = 4096

_NEW_MOUNTS = 0x00020000  # CLONE_NEWNS
_PRIVATE = 1 << 18 | 1 << 14  # MS_PRIVATE | MS_REC
_NO_PROGRAMS = 2 | 4 | 8  # MS_NOSUID | MS_NODEV | MS_NOEXEC
_DETACH = 2  # MNT_DETACH


@dataclass(frozen=True, slots=True)
class SpoolDisk:
    """Where the spool is. can_fill: it is a disk of its own; else the spool's limit is small and fills by itself."""

    path: Path
    can_fill: bool

    @property
    def spool_bytes(self) -> int:
        """Setting of the services' spool: on a disk of its own the disk is the limit."""
        return 64 << 20 if self.can_fill else SMALL_SPOOL_BYTES

    def fill(self, *, spare_pages: int) -> None:
        """Leave room for so many pages and no more."""
        with (self.path / ".filling").open("wb", buffering=0) as filling:
            written = 0
            try:
                while True:
                    written += filling.write(bytes(_PAGE_BYTES))
            except OSError:
                filling.truncate(max(0, written - spare_pages * _PAGE_BYTES))

    def empty(self) -> None:
        """Give the room back."""
        (self.path / ".filling").unlink(missing_ok=True)

    def leftovers(self) -> list[str]:
        """Files that nobody emptied: events, what was set aside as damaged, ledgers that do not balance."""
        return [str(path.relative_to(self.path)) for path in self.path.glob("*/*") if path.is_file()]


@contextmanager
def spool_disk(path: Path) -> Iterator[SpoolDisk]:
    """Yield a disk for the spool, mounted for this process and its children; it goes with the last of them.

    To be called before any thread is started: a mount namespace belongs to threads.
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
