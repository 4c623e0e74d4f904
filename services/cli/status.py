"""`pulse status`: the processes of the running stack."""

from collections.abc import Iterable
from typing import Annotated

import orjson
import typer
from rich.table import Table
from rich.text import Text

from services.cli.app import new_app
from services.cli.console import open_console
from services.cli.home import Home
from services.cli.state_file import running_state
from services.shared.visible_text import terminal_text

app = new_app()


@app.command()
def status(*, as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Show the processes of the running stack.

    Exits with 1 if the stack does not run or a process is not ready.
    """
    processes = running_state(Home.find()).processes
    if as_json:
        shown = [{name: getattr(process, name) for name in process.public} for process in processes]
        print(orjson.dumps({"processes": shown}).decode())
    else:
        rows = ((one.name, one.pid, one.port, "ready" if one.ready else "not ready", one.restarts) for one in processes)
        open_console().print(process_table(rows))
    if not all(process.ready for process in processes):
        raise typer.Exit(1)


def process_table(rows: Iterable[tuple[str, int | None, int | None, str, int]]) -> Table:
    """Return a table of name, pid, port, state and restarts of each process."""
    made = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0))
    for title in ("process", "pid", "port", "ready", "restarts"):
        made.add_column(title, justify="left" if title in ("process", "ready") else "right")
    for name, pid, port, state, restarts in rows:
        color = "green" if state == "ready" else "yellow"
        made.add_row(name, str(pid or "-"), str(port or "-"), Text(terminal_text(state), color), str(restarts))
    return made
