"""Child processes that end with their parent, even if it is killed with SIGKILL.

The child starts as a few lines of Python that ask the kernel for a signal at the parent's death and then become the
program. So no code runs between fork and exec in the parent, which may have threads. The kernel watches the thread that
started the child, so start children from the main thread.
"""

import os
import signal
import sys
from collections.abc import Callable, Sequence

# 1 is PR_SET_PDEATHSIG. The parent may end before prctl is called, so getppid is checked after it.
_LAUNCHER = (
    "import ctypes, os, sys; "
    "ctypes.CDLL(None).prctl(1, int(sys.argv[2])); "
    "os.getppid() == int(sys.argv[1]) or sys.exit(1); "
    "os.execv(sys.argv[3], sys.argv[3:])"
)


# The system's Python is used if the child's user cannot enter the directory of ours.
INTERPRETERS = (os.path.realpath(sys.executable), "/usr/bin/python3")


def tethered(
    argv: Sequence[str],
    *,
    on_parent_death: signal.Signals = signal.SIGTERM,
    can_run: Callable[[Sequence[str]], bool] = lambda _argv: True,
) -> list[str]:
    """Return a command line that runs argv and signals it when the calling process dies.

    argv[0] must be a path. The process keeps its pid, and its command line becomes argv. can_run returns whether the
    child's user can run a command. Without a usable interpreter, or on systems other than Linux, argv is returned.
    """
    if sys.platform.startswith("linux"):
        for python in INTERPRETERS:
            if can_run([python, "-I", "-S", "-c", ""]):
                return [python, "-I", "-S", "-c", _LAUNCHER, str(os.getpid()), str(int(on_parent_death)), *argv]
    return list(argv)
