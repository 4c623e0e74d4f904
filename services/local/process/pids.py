"""Processes that need not be our children: whether they run, what they run, and how they are stopped."""

import contextlib
import os
import signal
import time
from collections.abc import Sequence

import psutil

INTERVAL_SECONDS = 0.02


def is_running(pid: int) -> bool:
    """Return whether the process exists and is no zombie that waits for its parent."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def command_line(pid: int) -> list[str]:
    """Return the arguments of the process, none if it is gone or hidden."""
    try:
        return psutil.Process(pid).cmdline()
    except psutil.Error:
        return []


def stop(pids: Sequence[int], steps: Sequence[tuple[signal.Signals, float]]) -> bool:
    """Send the signals in turn, wait the seconds of each, and return whether all processes have ended."""
    for number, seconds in steps:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        deadline = time.monotonic() + seconds
        while any(is_running(pid) for pid in pids):
            if time.monotonic() > deadline:
                break
            time.sleep(INTERVAL_SECONDS)
        else:
            return True
    return False
