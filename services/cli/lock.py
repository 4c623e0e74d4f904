"""Lock on a file, held by one process at a time. The kernel releases it when the process ends."""

import fcntl
import os
from pathlib import Path
from typing import IO

from services.cli.errors import CommandFailed
from services.cli.home import PROGRAM


class AlreadyHeldError(CommandFailed):
    """Another process holds the lock. `pid` is None if the file does not name it."""

    status = 2

    def __init__(self, pid: int | None) -> None:
        super().__init__(f"already running, process {pid}: {PROGRAM} status shows it")
        self.pid = pid


def hold(file: Path) -> IO[str]:
    """Lock the file until the returned handle is closed or this process ends. Raises AlreadyHeldError."""
    file.parent.mkdir(parents=True, exist_ok=True)
    handle = file.open("a+")
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        handle.close()
        raise AlreadyHeldError(_read_pid(file)) from None
    handle.truncate(0)
    handle.write(str(os.getpid()))
    handle.flush()
    return handle


def holder(file: Path) -> int | None:
    """Return the pid of the process that holds the lock, 0 if it is unknown, None if the lock is free."""
    try:
        with file.open() as handle:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return None
    except BlockingIOError:
        return _read_pid(file) or 0
    return None


def _read_pid(file: Path) -> int | None:
    text = file.read_text().strip()
    return int(text) if text.isdigit() else None
