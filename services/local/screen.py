"""What `pulse up` shows: a live table on a terminal, a line for each change elsewhere."""

from collections.abc import Sequence
from datetime import datetime

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from services.local.supervise import Child


class Screen:
    """Prints notes, and the processes below them."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._live: Live | None = None
        self._shown: dict[str, str] = {}

    def note(self, text: str | Text | Table = "") -> None:
        """Print something once; on a terminal it scrolls above the table."""
        self.console.print(text, highlight=False, soft_wrap=True)

    def open(self) -> None:
        """Start the live table, if this is a terminal."""
        if self.console.is_terminal:
            self._live = Live(console=self.console, auto_refresh=False)
            self._live.start()

    def close(self) -> None:
        """Leave the table as it is and give the terminal back."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def show(self, children: Sequence[Child]) -> None:
        """Bring the table up to date, or print what changed."""
        if self._live is not None:
            self._live.update(table(children), refresh=True)
        elif not self.console.is_terminal:
            for child in children:
                line = describe(child)
                if line != self._shown.get(child.spec.name):
                    self._shown[child.spec.name] = line
                    self.note(f"{datetime.now():%H:%M:%S} {line}")


def describe(child: Child) -> str:
    """One line about a process, without what changes by itself."""
    where = f", port {child.spec.port}" if child.spec.port else ""
    again = f", restart {child.restarts}" if child.restarts else ""
    if child.pid is None:
        return f"{child.spec.name}: not running ({child.fault or 'starting'}){again}"
    return f"{child.spec.name}: {'ready' if child.ready else 'starting'}, pid {child.pid}{where}{again}"


def table(children: Sequence[Child]) -> Table:
    """All processes: name, pid, port, ready, restarts."""
    made = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0))
    for title in ("process", "pid", "port", "ready", "restarts"):
        made.add_column(
            title, justify="left" if title in ("process", "ready") else "right", style="" if title != "pid" else "dim"
        )
    for child in children:
        ready = Text("ready", "green") if child.ready else Text(child.fault or "starting", "yellow")
        pid = str(child.pid) if child.pid else "-"
        made.add_row(child.spec.name, pid, str(child.spec.port or "-"), ready, str(child.restarts))
    return made
