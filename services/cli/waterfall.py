"""Waterfall of a trace: an indented tree with offsets, durations and, on a terminal, bars on one time axis.

Retries may come hours after the other steps. A stretch without activity is a pause: it has no width on the axis and
one line in the tree. The steps before the first pause get half of the axis, so that milliseconds stay visible beside
retries that take seconds.
"""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from rich.table import Table
from rich.text import Text

from services.shared.visible_text import terminal_text

Row = Mapping[str, Any]

PAUSE_SECONDS = 1.0
LEAST_BAR, MOST_BAR = 12, 60
# Columns left of the bars: offset, duration, service, and enough of the tree to be legible.
_BESIDE_BARS = 100


@dataclass(frozen=True, slots=True)
class Line:
    """Line of the waterfall: a row, its guides in the tree, and the pause before it in seconds, 0 for none."""

    row: Row
    guides: str
    pause_seconds: float


class Axis:
    """Map from seconds since the first row to columns below the width, without the pauses."""

    def __init__(self, rows: Sequence[Row], width: int) -> None:
        self._start = min(row["at"] for row in rows)
        self.bursts = list(_bursts(sorted(self.interval(row) for row in rows)))
        self._last_column = max(0, width - 1)
        later = len(self.bursts) - 1
        first_share = 0.5 if later else 1.0
        self._edges = [0.0, *(first_share + (1 - first_share) * number / (later or 1) for number in range(later + 1))]

    def interval(self, row: Row) -> tuple[float, float]:
        """Return begin and end of the row's work, in seconds since the start of the trace. A job only waits."""
        begun = (row["at"] - self._start).total_seconds()
        lasted = 0.0 if row["kind"] == "job" else float(row["duration_ms"] or 0) / 1000
        return begun, begun + lasted

    def column(self, seconds: float) -> int:
        """Return the column of a moment."""
        burst = max(0, self._begun_by(seconds) - 1)
        start, end = self.bursts[burst]
        left, right = self._edges[burst : burst + 2]
        done = min(1.0, (seconds - start) / (end - start)) if end > start else 0.0
        return int((left + (right - left) * done) * self._last_column)

    def pause(self, before: Row, after: Row) -> float:
        """Return the seconds between the beginnings of two rows if a pause lies between them, else 0."""
        first, second = self.interval(before)[0], self.interval(after)[0]
        return second - first if self._begun_by(first) < self._begun_by(second) else 0.0

    def _begun_by(self, seconds: float) -> int:
        """Return how many bursts have begun by then, by bisection: a long trace has one burst per row."""
        return bisect_right(self.bursts, (seconds, float("inf")))


def _bursts(intervals: Sequence[tuple[float, float]]) -> Iterator[tuple[float, float]]:
    start, end = intervals[0]
    for begun, ended in intervals[1:]:
        if begun - end > PAUSE_SECONDS:
            yield start, end
            start = begun
        end = max(end, ended)
    yield start, end


def lines(rows: Sequence[Row], axis: Axis) -> Iterator[Line]:
    """Yield the tree from its roots, siblings by time."""
    children: dict[str | None, list[Row]] = defaultdict(list)
    for row in rows:
        children[row["parent_span_id"]].append(row)
    before = rows[0]
    # A stack instead of recursion, because a trace may be deep.
    waiting = [(row, "", "") for row in reversed(children[None])]
    while waiting:
        row, guides, below = waiting.pop()
        yield Line(row, guides, axis.pause(before, row))
        before = row
        mine = children[row["span_id"]]
        for number, child in reversed(list(enumerate(mine, start=1))):
            is_last = number == len(mine)
            waiting.append((child, below + ("└─ " if is_last else "├─ "), below + ("   " if is_last else "│  ")))


def waterfall_table(rows: Sequence[Row], *, width: int | None) -> Table:
    """Return the trace as a table. width: of the terminal, or None for a table without bars."""
    bar_width = 0 if width is None else min(MOST_BAR, width - _BESIDE_BARS)
    has_bars = bar_width >= LEAST_BAR
    axis = Axis(rows, bar_width)
    shown = Table(box=None, padding=(0, 2, 0, 0))
    shown.add_column("since start", justify="right", no_wrap=True)
    shown.add_column("took", justify="right", no_wrap=True)
    shown.add_column("service", no_wrap=True)
    shown.add_column("what")
    if has_bars:
        shown.add_column("", width=bar_width, no_wrap=True)
    for line in lines(rows, axis):
        if line.pause_seconds:
            stem = line.guides[:-3] + ("│  " if line.guides else "")
            shown.add_row("⋯", "", "", _cut(f"{stem}⋯ {_duration(line.pause_seconds * 1000)} later"))
        row = line.row
        begun, ended = axis.interval(row)
        cells: list[Text | str] = [
            f"+{_duration(begun * 1000)}",
            "" if row["duration_ms"] is None else _duration(row["duration_ms"]),
            Text(terminal_text(row["service"])),
            _cut(line.guides + terminal_text(row["what"])),
        ]
        if has_bars:
            first = axis.column(begun)
            cells.append(" " * first + ("━" * max(1, axis.column(ended) - first) if ended > begun else "╸"))
        shown.add_row(*cells, style="dim" if row["kind"] == "audit" else None)
    return shown


def _cut(text: str) -> Text:
    """Return the text of the only column that is cut if the terminal is narrow."""
    return Text(text, no_wrap=True, overflow="ellipsis")


def _duration(milliseconds: float) -> str:
    """Return a duration with its significant digits: 1.2 ms, 3.4 s, 12 min 5 s, 2 h 5 min, 3 d 4 h."""
    seconds = milliseconds / 1000
    if seconds < 1:
        return f"{milliseconds:.1f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    whole = timedelta(seconds=round(seconds))
    minutes = whole.seconds // 60
    hours, minutes = divmod(minutes, 60)
    if whole.days:
        return f"{whole.days} d {hours} h"
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {whole.seconds % 60} s"
