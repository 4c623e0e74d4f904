"""Bounds on what refresh tokens cost the issuer, which alone can check them."""

import asyncio
import hashlib
import time
from collections import Counter
from collections.abc import Callable
from typing import Protocol

from cachetools import TTLCache

from services.ui_iot.auth.oidc import Granted
from services.ui_iot.auth.refusals import Refusal
from services.ui_iot.http.client_address import Address
from services.ui_iot.limits.failure_limit import FailureLimit, group_of

# A token that the issuer refused stays refused. A client that repeats it costs the issuer nothing.
REFUSED_SECONDS = 300.0
MOST_REFUSED = 10_000
# Requests in hand of one address that pass at once, because none has failed yet.
MOST_AT_ONCE = 8
# Further ones, and all of an address with too many failures, reach the issuer one at a time, at most ten a second.
HELD_BACK_SECONDS = 0.1
MOST_IN_HAND = 20

_BUSY = Refusal("rate_limited", "Too many failed attempts from this address.", retry_after_seconds=2)


class TokenEndpoint(Protocol):
    """The issuer's side of a refresh."""

    async def refresh(self, refresh_token: str) -> Granted | Refusal:
        """Exchange the token."""


class RefreshGate:
    """Passes refresh tokens to the issuer, those of suspicious addresses slowly, and none that it refused lately."""

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
        """Return the issuer's answer to the token, which came from the address."""
        digest = hashlib.sha256(token.encode("utf-8", "replace")).digest()
        refused = self._refused.get(digest)
        if refused is not None:
            return refused
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
