"""Ties the life of a child process to ours, so that kill -9 of the parent leaves nothing running.

The child starts as a few lines of Python that ask the kernel for a signal at our death and then become the real
program. That needs no code between fork and exec in our own, possibly threaded, process. The kernel watches the
thread that started the child: start children from a thread that lives as long as they do, the main thread.
"""

import os
import signal
import sys
from collections.abc import Callable, Sequence

# 1 = PR_SET_PDEATHSIG. The parent may be gone before prctl is called, hence the look at getppid.
_LAUNCHER = (
    "import ctypes, os, sys; "
    "ctypes.CDLL(None).prctl(1, int(sys.argv[2])); "
    "os.getppid() == int(sys.argv[1]) or sys.exit(1); "
    "os.execv(sys.argv[3], sys.argv[3:])"
)


# The machine's own Python stands in where ours is below a directory that the child's user cannot enter.
INTERPRETERS = (os.path.realpath(sys.executable), "/usr/bin/python3")


def tethered(
    argv: Sequence[str],
    *,
    on_parent_death: signal.Signals = signal.SIGTERM,
    can_run: Callable[[Sequence[str]], bool] = lambda _argv: True,
) -> list[str]:
    """Command line that runs argv and sends it a signal when the calling process dies.

    argv[0] must be a path. The process keeps its pid and its command line becomes argv. can_run tells what the user
    who will run it can run. Without a usable interpreter, or where the kernel has no such service (macOS), argv is
    returned as it is.
    """
    if sys.platform.startswith("linux"):
        for python in INTERPRETERS:
            if can_run([python, "-I", "-S", "-c", ""]):
                return [python, "-I", "-S", "-c", _LAUNCHER, str(os.getpid()), str(int(on_parent_death)), *argv]
    return list(argv)
