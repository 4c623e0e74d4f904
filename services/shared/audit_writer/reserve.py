"""Room for ledgers on a disk that is full: files of their size, made while there was room.

A process that starts then, and finds neither database nor spool, can still write down how much it lost.
"""

import contextlib
import os
from pathlib import Path

# Lives of a process that may begin, and be killed, while the disk is full.
FILES = 8


def stock(root: Path, size: int) -> None:
    """Make what is missing, as far as the disk has room."""
    for number in range(FILES):
        file = root / f".reserve-{number}"
        if file.exists():
            continue
        try:
            handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except OSError:
            return
        try:
            # Real bytes, not a hole: a store into a hole of a full disk would end the process with SIGBUS.
            whole = os.write(handle, bytes(size)) == size
            os.fsync(handle)
        except OSError:
            whole = False
        finally:
            os.close(handle)
        if not whole:
            file.unlink(missing_ok=True)
            return


def take(root: Path, file: Path) -> bool:
    """Whether one of them is now `file`; of two processes that want the same one, one gets it."""
    for number in range(FILES):
        with contextlib.suppress(OSError):
            (root / f".reserve-{number}").rename(file)
            return True
    return False
