"""Output of `pulse up`: a live table on a terminal, otherwise one line per change."""

from collections.abc import Sequence
from datetime import datetime

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from services.cli.status import process_table
from services.local.stack.supervise import Child
from services.shared.visible_text import terminal_text


class Screen:
    """Notes, with the table of processes below them."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._live: Live | None = None
        self._shown: dict[str, str] = {}

    def note(self, text: str | Text | Table = "") -> None:
        """Print a note, which scrolls above the table on a terminal."""
        self.console.print(text, highlight=False, soft_wrap=True)

    def open(self) -> None:
        """Start the live table on a terminal."""
        if self.console.is_terminal:
            self._live = Live(console=self.console, auto_refresh=False)
            self._live.start()

    def close(self) -> None:
        """Leave the last table on the terminal."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def show(self, children: Sequence[Child]) -> None:
        """Update the table, or print each change."""
        if self._live is not None:
            self._live.update(table(children), refresh=True)
        elif not self.console.is_terminal:
            for child in children:
                line = describe(child)
                # A process that has neither started nor failed has no line.
                if (child.pid or child.fault) and line != self._shown.get(child.spec.name):
                    self._shown[child.spec.name] = line
                    self.note(f"{datetime.now().astimezone():%H:%M:%S} {line}")


def describe(child: Child) -> str:
    """Return one line about a process."""
    where = f", port {child.spec.port}" if child.spec.port else ""
    again = f", restart {child.restarts}" if child.restarts else ""
    if child.pid is None:
        return f"{child.spec.name}: {progress(child)} ({terminal_text(child.fault)}){again}"
    return f"{child.spec.name}: {progress(child)}, pid {child.pid}{where}{again}"


def progress(child: Child) -> str:
    """Return the state of a process in a word or two."""
    if child.stopping.is_set():
        return "stopping" if child.pid else "stopped"
    if child.pid is None:
        return "not running"
    return "ready" if child.ready else "not ready" if child.was_ready else "starting"


def table(children: Sequence[Child]) -> Table:
    """Return the table of processes, with the fault of each that is not running."""
    return process_table((one.spec.name, one.pid, one.spec.port, _state(one), one.restarts) for one in children)


def _state(child: Child) -> str:
    waits = child.pid is None and not child.stopping.is_set()
    return (child.fault or "starting") if waits else progress(child)
