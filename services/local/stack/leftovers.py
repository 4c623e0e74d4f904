"""Processes of a stack whose supervisor was killed: they end by themselves, here we wait for it and help."""

import signal

from services.cli.errors import LocalError
from services.cli.home import Home
from services.cli.state_file import read_state
from services.local.process import pids

PATIENCE_SECONDS = 8.0


def stop_leftovers(home: Home) -> None:
    """Return when no process of the last stack runs; the caller holds the stack's lock. Postgres is not among them."""
    last = read_state(home)
    if last is None:
        return
    left = [
        process.pid
        for process in last.processes
        # The pid may have been given to somebody else since.
        if process.pid is not None and process.module and process.module in pids.command_line(process.pid)
    ]
    for number in (signal.SIGTERM, signal.SIGKILL):
        for pid in left:
            pids.send(pid, number)
        if pids.wait_gone(left, seconds=PATIENCE_SECONDS):
            return
    raise LocalError(f"processes {left} of an earlier start do not end")
