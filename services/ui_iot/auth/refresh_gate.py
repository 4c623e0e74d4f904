"""Bounds on the load of refresh tokens on the issuer, which alone can check them."""

import asyncio
import hashlib
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from cachetools import TTLCache

from services.ui_iot.auth.client_address import Address
from services.ui_iot.auth.failure_limit import FailureLimit, group_of
from services.ui_iot.auth.oidc import Granted
from services.ui_iot.auth.refusals import Refusal

# Time for which a refused token is refused without asking the issuer again.
REFUSED_SECONDS = 300.0
MOST_REFUSED = 10_000
# Concurrent requests of one address that pass without delay.
MOST_AT_ONCE = 8
# Further requests, and all requests of an address with too many failures, pass one at a time, at most ten a second.
HELD_BACK_SECONDS = 0.1
MOST_IN_HAND = 20

_BUSY = Refusal("rate_limited", "Too many failed attempts from this address.", retry_after_seconds=2)


class TokenEndpoint(Protocol):
    """An issuer that exchanges refresh tokens."""

    async def refresh(self, refresh_token: str) -> Granted | Refusal:
        """Return the answer to the token."""


class RefreshGate:
    """Passes refresh tokens to the issuer: slowly for suspicious addresses, and not at all if recently refused."""

    def __init__(
        self,
        limit: FailureLimit,
        *,
        clock: Callable[[], float] = time.monotonic,
        pause_seconds: float = HELD_BACK_SECONDS,
    ) -> None:
        self._limit = limit
        self._pause_seconds = pause_seconds
        self._refused: TTLCache[bytes, Refusal] = TTLCache(MOST_REFUSED, REFUSED_SECONDS, timer=clock)
        self._in_hand: Counter[object] = Counter()
        self._turn = asyncio.Lock()

    async def exchange(self, issuer: TokenEndpoint, token: str, address: Address | None) -> Granted | Refusal:
        """Return the issuer's answer to a token that came from the address."""
        digest = hashlib.sha256(token.encode("utf-8", "replace")).digest()
        with suppress(KeyError):  # get() would fail for an entry that ends between its two looks
            return self._refused[digest]
        result = await self._ask(issuer, token, address)
        if isinstance(result, Refusal) and result.reason == "invalid_token":
            self._refused[digest] = result
        return result

    async def _ask(self, issuer: TokenEndpoint, token: str, address: Address | None) -> Granted | Refusal:
        group = group_of(address)
        self._in_hand[group] += 1
        try:
            if self._in_hand[group] > MOST_IN_HAND:
                return _BUSY
            if self._limit.wait_seconds(address) or self._in_hand[group] > MOST_AT_ONCE:
                async with self._turn:
                    await asyncio.sleep(self._pause_seconds)
                    return await issuer.refresh(token)
            return await issuer.refresh(token)
        finally:
            self._in_hand[group] -= 1
            if not self._in_hand[group]:
                del self._in_hand[group]
