"""Progress of a long command on standard error: a bar on a terminal, else a line every ten seconds."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

_LINE_SECONDS = 10.0


@contextmanager
def show_progress(doing: str) -> Iterator[tuple[Callable[[int], None], Callable[[int], None]]]:
    """Yield two functions: one sets the total, the other adds to the number done."""
    if sys.stderr.isatty():
        columns = (TextColumn(doing), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task("", total=None)
            yield (lambda total: bar.update(task, total=total)), (lambda done: bar.update(task, advance=done))
        return
    total = done = 0
    shown_at = time.monotonic()

    def begin(count: int) -> None:
        nonlocal total
        total = count

    def advance(count: int) -> None:
        nonlocal done, shown_at
        done += count
        if time.monotonic() - shown_at >= _LINE_SECONDS:
            shown_at = time.monotonic()
            print(f"{doing}: {done:,} of {total:,}", file=sys.stderr)

    yield begin, advance
