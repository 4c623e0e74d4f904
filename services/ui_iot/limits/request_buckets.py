"""Buckets of requests, one for each principal or tenant, refilled evenly, in bounded memory.

A bucket is one number: the time at which it will be full again. A request moves it by a minute divided by the limit,
and is refused when it would lie more than a minute ahead.
"""

import math
from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)

WINDOW_SECONDS = 60.0
# Two generations of so many: about 10 MB when both are full.
MOST_KEYS = 25_000


class Buckets(Generic[K]):
    """Buckets by key. A key that many others came after is forgotten, which fills its bucket."""

    __slots__ = ("_full_at", "_most_keys", "_older", "per_minute", "step")

    def __init__(self, per_minute: int, *, most_keys: int = MOST_KEYS) -> None:
        """per_minute: requests of a key in a burst and in a minute; 0 turns the limit off."""
        self.per_minute = per_minute
        self.step = WINDOW_SECONDS / per_minute if per_minute else 0.0
        self._most_keys = most_keys
        self._full_at: dict[K, float] = {}
        self._older: dict[K, float] = {}

    def __len__(self) -> int:
        """Number of keys that are remembered."""
        return len(self._full_at) + len(self._older)

    def full_at(self, key: K, now: float) -> float:
        """Return when the bucket would be full after a further request; more than a minute ahead: refuse it."""
        at = self._full_at.get(key)
        if at is None:
            at = self._older.get(key, now)
        return max(now, at) + self.step

    def take(self, key: K, full_at: float) -> None:
        """Take a request from the bucket, which then will be full at that time."""
        if not self.step:
            return
        if len(self._full_at) >= self._most_keys and key not in self._full_at:
            self._older, self._full_at = self._full_at, {}
        self._full_at[key] = full_at

    def remaining(self, ahead_seconds: float) -> int:
        """Return the requests left in a bucket that will be full in so many seconds."""
        # Rounding must not hide the last request.
        return max(0, int((WINDOW_SECONDS - ahead_seconds) / self.step + 1e-6)) if self.step else 0


def wait_seconds(ahead_seconds: float) -> int:
    """Return the whole seconds until a refused request would be taken."""
    return max(1, math.ceil(ahead_seconds - WINDOW_SECONDS))
