"""Limits on failed attempts: a token bucket for each address and account, in bounded memory."""

import math
import time
from collections.abc import Callable
from ipaddress import IPv6Address, IPv6Network

from cachetools import LRUCache

from services.ui_iot.auth.client_address import Address

# About 2 MB when full. Then the least recently used source is forgotten.
MOST_ADDRESSES = 10_000


Account = tuple[str, str | None, str | None]
"""An account: "proven" or "claimed", its tenant if that is proven, and its id."""
Source = Address | Account | None
"""Source of failures: an account, or an address (None on a Unix socket)."""


class FailureLimit:
    """Counts failures by source. All addresses of an IPv6 /64 are one source, because one customer owns them."""

    def __init__(
        self,
        per_minute: int,
        *,
        clock: Callable[[], float] = time.monotonic,
        most_addresses: int = MOST_ADDRESSES,
    ) -> None:
        """per_minute: number of failures a source may have in a burst and in a minute. 0 turns the limit off."""
        self._burst = per_minute
        self._per_second = per_minute / 60
        self._clock = clock
        self._buckets: LRUCache[object, tuple[float, float]] = LRUCache(most_addresses)

    def wait_seconds(self, source: Source) -> int:
        """Return the whole seconds until the source may fail again, or 0 if it may now."""
        if self._burst == 0:
            return 0
        left = self._left(group_of(source))
        return 0 if left >= 1 else math.ceil((1 - left) / self._per_second)

    def record_failure(self, source: Source) -> None:
        """Take one failure from the source's bucket."""
        if self._burst == 0:
            return
        group = group_of(source)
        self._buckets[group] = (max(0.0, self._left(group) - 1), self._clock())

    def _left(self, group: object) -> float:
        left, since = self._buckets.get(group, (float(self._burst), 0.0))
        return min(self._burst, left + (self._clock() - since) * self._per_second)


def group_of(source: Source) -> object:
    """Return the key of the source's bucket: the /64 of an IPv6 address, else the source itself."""
    if isinstance(source, IPv6Address):
        return IPv6Network((int(source) >> 64 << 64, 64))
    return source
