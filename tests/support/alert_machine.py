"""The evaluator's state machine in plain Python: one rule, one device, one reading at a time."""

from collections.abc import Sequence
from dataclasses import dataclass, field

Event = tuple[str, float]


@dataclass(slots=True)
class Machine:
    """A pair of rule and device. Times are seconds; a reading breaches above the threshold."""

    for_seconds: float = 0
    threshold: float = 80
    stored: dict[float, float] = field(default_factory=dict)
    newest: float | None = None
    since: float | None = None
    due: float | None = None
    opened: float | None = None
    ended: float | None = None
    events: list[Event] = field(default_factory=list)

    def read(self, timestamp: float, arrival: float, value: float) -> None:
        """Take the next reading in the order of arrival."""
        if self.stored.get(timestamp) == value:
            return  # a duplicate
        self.stored[timestamp] = value
        self.wait(arrival)
        time, breach = min(timestamp, arrival), value > self.threshold
        if self.newest is not None and time < self.newest:
            self._read_late(time, breach)
            return
        self.newest = time
        if not breach:
            if self.opened is not None:
                self.ended = max(time, self.opened)
                self.events.append(("closed", self.ended))
            self.since = self.due = self.opened = None
            return
        if self.since is None:
            self.since, self.due = time, arrival + self.for_seconds
        if self.opened is None and time - self.since >= self.for_seconds:
            self._open(time)

    def wait(self, now: float) -> None:
        """Advance the server's clock to a time."""
        if self.since is not None and self.opened is None and self.due is not None and self.due < now:
            self._open(self.since + self.for_seconds)

    def _open(self, at: float) -> None:
        self.opened = at
        self.events.append(("opened", at))

    def _read_late(self, time: float, breach: bool) -> None:
        is_reported = breach and self.for_seconds == 0 and self.since is None
        if is_reported and (self.ended is None or time > self.ended):
            self.ended = self.newest
            self.events += [("opened", time), ("closed", self.newest or time)]


MOST_CHANGES = 10
"""Changes of a pair that a pass writes one by one; more are one flapping alert."""

Row = tuple[str, float, int | None]
"""An alert event as Pulse writes it: kind, time and, for the kind flapping, the number of changes it stands for."""


def matches_events(rows: Sequence[Row], events: Sequence[Event]) -> bool:
    """Return true when the rows are the machine's events, of which those of some passes are written as flapping.

    The changes of a flapping row are the opening before it if it stands for that too, those between, and the closing
    after it if they end with one.
    """
    if not rows:
        return not events
    kind, at, changes = rows[0]
    if kind == "flapping":
        return _matches_flapping(changes or 0, rows[1:], events, "closed")
    if not events or events[0] != (kind, at):
        return False
    if kind == "opened" and len(rows) > 1 and rows[1][0] == "flapping" and rows[1][1] == at:
        return matches_events(rows[1:], events[1:]) or _matches_flapping(rows[1][2] or 0, rows[2:], events, "opened")
    return matches_events(rows[1:], events[1:])


def _matches_flapping(changes: int, after: Sequence[Row], events: Sequence[Event], first: str) -> bool:
    covered = events[:changes]
    if not MOST_CHANGES < changes == len(covered) or covered[0][0] != first:
        return False
    if covered[-1][0] == "opened":
        return matches_events(after, events[changes:])
    return bool(after) and after[0][:2] == covered[-1] and matches_events(after[1:], events[changes:])
