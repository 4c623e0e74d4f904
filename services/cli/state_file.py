"""State of a running stack in stack.json, for `pulse status` and other commands, and for the next start."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import ClassVar

import orjson

from services.cli.errors import CommandFailed
from services.cli.home import PROGRAM, Home
from services.cli.lock import holder
from services.shared.write_once import replace


class NotRunningError(CommandFailed):
    """The stack does not run. `otherwise`: another way to do the work, for the message."""

    def __init__(self, otherwise: str = "") -> None:
        super().__init__(f"The stack does not run; start it with {PROGRAM} up{otherwise}.")


@dataclass(frozen=True, slots=True)
class ProcessState:
    """State of one process. `module` is the Python module that it runs, None for Postgres."""

    name: str
    pid: int | None
    port: int | None
    ready: bool
    restarts: int
    module: str | None = None
    public: ClassVar = ("name", "pid", "port", "ready", "restarts")


@dataclass(frozen=True, slots=True)
class StackState:
    """State of the whole stack. The last two members are None if PULSE_DATABASE_URL names the database."""

    pid: int
    port_base: int
    processes: Sequence[ProcessState]
    migration_url: str | None = None
    bin_dir: str | None = None


def write_state(home: Home, state: StackState) -> None:
    """Write the state atomically."""
    replace(home.state, orjson.dumps(asdict(state)))


def read_state(home: Home) -> StackState | None:
    """Return the last state that was written, perhaps by a stack that has ended. None if there is none."""
    try:
        document = orjson.loads(home.state.read_bytes())
        document["processes"] = [ProcessState(**process) for process in document["processes"]]
        return StackState(**document)
    except (OSError, ValueError, TypeError, KeyError):
        return None


def running_state(home: Home, *, otherwise: str = "") -> StackState:
    """Return the state of the running stack. Raises NotRunningError."""
    state = _find_running(home)
    if state is None:
        raise NotRunningError(otherwise)
    return state


def is_running(home: Home) -> bool:
    """Return whether a stack runs."""
    return _find_running(home) is not None


def _find_running(home: Home) -> StackState | None:
    state = read_state(home)
    return None if state is None or state.pid != holder(home.lock) else state
