"""What a value in a slot is: its key says all of it, so that whoever adds slots up needs to know no metric by name."""

from collections.abc import Callable
from dataclasses import dataclass
from operator import add
from typing import Self

import orjson

Combine = Callable[[float, float], float]

_LEAST = frozenset(("process_start_time_seconds", "pulse_audit_spool_usable"))
_MOST_SUFFIXES = ("_info", "_age_seconds", "_timestamp_seconds")
_ADDED_UP = frozenset(("counter", "histogram", "summary"))


@dataclass(frozen=True, slots=True)
class Series:
    """One sample of one family.

    is_live: the metric itself lives in the slot; else a copy of what was collected. mode: the multiprocess_mode that a
    gauge was declared with.
    """

    is_live: bool
    type: str
    family: str
    help: str
    name: str
    labels: tuple[tuple[str, str], ...]
    mode: str = ""

    def key(self) -> bytes:
        """The series as bytes."""
        return orjson.dumps((self.is_live, self.type, self.family, self.help, self.name, self.labels, self.mode))

    @classmethod
    def of(cls, key: bytes) -> Self:
        """The series of a key."""
        is_live, kind, family, text, name, labels, mode = orjson.loads(key)
        return cls(is_live, kind, family, text, name, tuple((label, value) for label, value in labels), mode)

    @property
    def outlives(self) -> bool:
        """Whether the value of a process that died still counts."""
        return self.type in _ADDED_UP and not self.name.endswith("_created")

    @property
    def combine(self) -> Combine:
        """What makes one value of those of two processes: their sum, if nothing says otherwise."""
        if self.name.endswith("_created"):
            return min
        if self.type in _ADDED_UP:
            return add
        if self.mode in {"min", "livemin"} or self.name in _LEAST:
            return min
        if self.mode in {"max", "livemax"} or self.name.endswith(_MOST_SUFFIXES):
            return max
        return add
