"""Token buckets of requests for each principal or tenant, in bounded memory.

A bucket is one number: the time at which it will be full again. A request moves this time by a minute divided by the
limit, and is refused if the time would lie more than a minute ahead.
"""

import math
from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)

WINDOW_SECONDS = 60.0
# Keys of one generation. Two full generations take about 10 MB.
MOST_KEYS = 25_000


class Buckets(Generic[K]):
    """Buckets by key. A key is forgotten, and its bucket full again, after many requests of other keys."""

    __slots__ = ("_full_at", "_most_keys", "_older", "per_minute", "step")

    def __init__(self, per_minute: int, *, most_keys: int = MOST_KEYS) -> None:
        """per_minute: number of requests of a key in a burst and in a minute. 0 turns the limit off."""
        self.per_minute = per_minute
        self.step = WINDOW_SECONDS / per_minute if per_minute else 0.0
        self._most_keys = most_keys
        self._full_at: dict[K, float] = {}
        self._older: dict[K, float] = {}

    def __len__(self) -> int:
        """Return the number of keys in memory."""
        return len(self._full_at) + len(self._older)

    def full_at(self, key: K, now: float) -> float:
        """Return the time at which the bucket would be full after a request. More than a minute ahead means refusal."""
        at = self._full_at.get(key)
        if at is None:
            at = self._older.get(key, now)
        return max(now, at) + self.step

    def take(self, key: K, full_at: float) -> None:
        """Count a request: the bucket will be full at the given time."""
        if not self.step:
            return
        if len(self._full_at) >= self._most_keys and key not in self._full_at:
            self._older, self._full_at = self._full_at, {}
        self._full_at[key] = full_at

    def remaining(self, ahead_seconds: float) -> int:
        """Return the requests left in a bucket that will be full in the given seconds."""
        # The addend keeps rounding from hiding the last request.
        return max(0, int((WINDOW_SECONDS - ahead_seconds) / self.step + 1e-6)) if self.step else 0


def wait_seconds(ahead_seconds: float) -> int:
    """Return the whole seconds until a refused request would be accepted."""
    return max(1, math.ceil(ahead_seconds - WINDOW_SECONDS))
