"""Looking at processes that may not be our children, and signalling them by pid."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

INTERVAL_SECONDS = 0.02


def is_running(pid: int) -> bool:
    """Whether the process exists and is more than a zombie that waits for its parent."""
    return exists(pid) and not _is_zombie(pid)


def exists(pid: int) -> bool:
    """Whether the kernel knows the pid, be it a zombie or somebody else's."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def command_line(pid: int) -> list[str]:
    """Arguments of the process, empty when it is gone or hidden; split at blanks where there is no /proc."""
    try:
        raw = Path(f"/proc/{pid}/cmdline").read_bytes()
        return [os.fsdecode(part) for part in raw.rstrip(b"\0").split(b"\0")] if raw else []
    except OSError:
        if Path("/proc/self").exists():
            return []
    ps = ["ps", "-o", "command=", "-p", str(pid)]
    return subprocess.run(ps, check=False, capture_output=True, text=True).stdout.split()


def send(pid: int, number: signal.Signals) -> None:
    """Signal the process; one that is gone is fine."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def wait_gone(pids: Sequence[int], *, seconds: float) -> bool:
    """Whether all processes ended within the time."""
    deadline = time.monotonic() + seconds
    while any(is_running(pid) for pid in pids):
        if time.monotonic() > deadline:
            return False
        time.sleep(INTERVAL_SECONDS)
    return True


def _is_zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (OSError, IndexError):
        return False
