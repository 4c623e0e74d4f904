"""Suppression of repeated log records, so that a fault in a loop does not fill the disk."""

import copy
import logging
from collections.abc import Iterator
from dataclasses import dataclass

PASSING = 10
"""Records of one kind that are written per second."""
_SECONDS = 1.0
# Message templates are constants of our code, but a library that formats its own messages has unlimited kinds.
_MOST_KINDS = 1000

_Kind = tuple[str, int, object]


@dataclass(slots=True)
class _Second:
    """The records of one kind since started. last: the newest suppressed one."""

    started: float
    count: int = 0
    left_out: int = 0
    last: logging.LogRecord | None = None

    def is_over(self, now: float) -> bool:
        """Return whether the second has passed or the clock was set back."""
        return not 0 <= now - self.started < _SECONDS


class Repeats:
    """A filter that passes ten records of one kind per second, then one with the number of the suppressed ones.

    Records with the same logger, level and message template are of one kind. Not thread-safe: the handler has a lock.
    """

    def __init__(self) -> None:
        self._seconds: dict[_Kind, _Second] = {}
        self._counting = False

    def passes(self, record: logging.LogRecord) -> bool:
        """Return whether to write a record. Count it if not."""
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
        """Yield the newest suppressed record of each kind whose second has passed, with the number as `repeats`."""
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
            # While the flood continues, only the count is written, once a second.
            count = PASSING if second.left_out > PASSING else 0
            second.started, second.count, second.left_out, second.last = now, count, 0, None
            yield counted

    def _forget(self, now: float) -> None:
        quiet = {kind: second for kind, second in self._seconds.items() if second.last is None}
        for kind in [kind for kind, second in quiet.items() if second.is_over(now)] or quiet:
            del self._seconds[kind]
