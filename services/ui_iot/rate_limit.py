"""How many failures an address may have: a bucket of tokens for each, refilled evenly, in bounded memory."""

import math
import time
from collections import OrderedDict
from collections.abc import Callable
from ipaddress import IPv6Address, IPv6Network

from services.ui_iot.client_address import Address

# About 2 MB when full; then the address that failed longest ago is forgotten first.
MOST_ADDRESSES = 10_000


class FailureLimit:
    """Counts failures by address; an IPv6 customer owns a /64, so all of it is one address here."""

    def __init__(
        self,
        per_minute: int,
        *,
        clock: Callable[[], float] = time.monotonic,
        most_addresses: int = MOST_ADDRESSES,
    ) -> None:
        """per_minute: failures an address may have in a burst and in a minute; 0 turns the limit off."""
        self._burst = per_minute
        self._per_second = per_minute / 60
        self._clock = clock
        self._most_addresses = most_addresses
        self._buckets: OrderedDict[object, tuple[float, float]] = OrderedDict()

    def wait_seconds(self, address: Address | None) -> int:
        """Whole seconds until the address may try again, 0 when it may now."""
        if self._burst == 0:
            return 0
        left = self._left(_group(address))
        return 0 if left >= 1 else math.ceil((1 - left) / self._per_second)

    def record_failure(self, address: Address | None) -> None:
        """Take one failure from the address' bucket."""
        if self._burst == 0:
            return
        group = _group(address)
        self._buckets[group] = (max(0.0, self._left(group) - 1), self._clock())
        self._buckets.move_to_end(group)
        if len(self._buckets) > self._most_addresses:
            self._buckets.popitem(last=False)

    def _left(self, group: object) -> float:
        left, since = self._buckets.get(group, (float(self._burst), 0.0))
        return min(self._burst, left + (self._clock() - since) * self._per_second)


def _group(address: Address | None) -> object:
    if isinstance(address, IPv6Address):
        return IPv6Network((int(address) >> 64 << 64, 64))
    return address
