"""Counts log records that repeat, so that a fault that happens in a loop fills no disk."""

import copy
import logging
from collections.abc import Iterator
from dataclasses import dataclass

PASSING = 10
"""Records of one kind that are written in a second."""
_SECONDS = 1.0
# Templates are constants of the code. A library that formats its messages itself makes as many kinds as it likes.
_MOST_KINDS = 1000

_Kind = tuple[str, int, object]


@dataclass(slots=True)
class _Second:
    """The records of one kind since started. last: the newest one that was left out."""

    started: float
    count: int = 0
    left_out: int = 0
    last: logging.LogRecord | None = None

    def is_over(self, now: float) -> bool:
        """Return whether the second has passed, also if the clock was set back."""
        return not 0 <= now - self.started < _SECONDS


class Repeats:
    """Decides which records are written: ten of one kind in a second, then one with the number of the others.

    Records are of one kind if logger, level and message template are the same. Not thread-safe: a handler has a lock.
    """

    def __init__(self) -> None:
        self._seconds: dict[_Kind, _Second] = {}
        self._counting = False

    def passes(self, record: logging.LogRecord) -> bool:
        """Return whether to write a record; it is counted otherwise."""
        kind = (record.name, record.levelno, record.msg if isinstance(record.msg, str) else type(record.msg))
        second = self._seconds.get(kind)
        if second is None:
            if len(self._seconds) >= _MOST_KINDS:
                self._forget(record.created)
            second = self._seconds[kind] = _Second(record.created)
        elif second.is_over(record.created) and second.last is None:
            second.started, second.count = record.created, 0
        second.count += 1
        if second.count <= PASSING:
            return True
        second.left_out += 1
        second.last = record
        self._counting = True
        return False

    def due(self, now: float) -> Iterator[logging.LogRecord]:
        """Yield a record for each kind of which some were left out in a second that is over."""
        if not self._counting:
            return
        self._counting = False
        for second in self._seconds.values():
            if second.last is None:
                continue
            if not second.is_over(now):
                self._counting = True
                continue
            counted = copy.copy(second.last)
            counted.__dict__["repeats"] = second.left_out
            # While the flood goes on, only the count is written, once a second.
            count = PASSING if second.left_out > PASSING else 0
            second.started, second.count, second.left_out, second.last = now, count, 0, None
            yield counted

    def _forget(self, now: float) -> None:
        quiet = {kind: second for kind, second in self._seconds.items() if second.last is None}
        for kind in [kind for kind, second in quiet.items() if second.is_over(now)] or quiet:
            del self._seconds[kind]
