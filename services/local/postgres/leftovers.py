"""What an earlier run left running on a data directory, and how it is stopped: always by pid, never by name."""

import signal
from collections.abc import Iterator
from pathlib import Path

from services.cli.errors import LocalError
from services.local.process import pids

# Fast shutdown, then immediate; never SIGKILL, which leaves shared memory behind. Together below the 10 s of a stop.
STOP_SIGNALS = ((signal.SIGINT, 6.0), (signal.SIGQUIT, 2.0))
ORPHAN_SECONDS = 2.0


def remove_leftovers(data: Path) -> None:
    """Stop what an earlier run left running on this data directory; the caller holds the lock of the home.

    A postmaster is stopped by its pid file. Backends that outlived theirs hold the shared memory and block the start.
    """
    pid = postmaster_pid(data)
    if pid is not None and str(data) in pids.command_line(pid):
        _stop(pid)
    orphans = list(_processes_in(data))
    for orphan in orphans:
        pids.send(orphan, signal.SIGQUIT)
    pids.wait_gone(orphans, seconds=ORPHAN_SECONDS)
    if pid is not None and pids.exists(pid):
        # The number belongs to a stranger by now, and Postgres would take it for its own.
        (data / "postmaster.pid").unlink(missing_ok=True)


def postmaster_pid(data: Path) -> int | None:
    """Pid in the pid file; the process may be gone."""
    try:
        return int((data / "postmaster.pid").read_text().splitlines()[0])
    except (OSError, IndexError, ValueError):
        return None


def _stop(pid: int) -> None:
    for number, seconds in STOP_SIGNALS:
        pids.send(pid, number)
        if pids.wait_gone([pid], seconds=seconds):
            return
    raise LocalError(f"Postgres with pid {pid} does not stop")


def _processes_in(data: Path) -> Iterator[int]:
    """A backend shows no data directory in its command line, but works in it."""
    for entry in Path("/proc").glob("[0-9]*/cwd"):
        try:
            if entry.readlink() == data:
                yield int(entry.parent.name)
        except OSError:
            continue
