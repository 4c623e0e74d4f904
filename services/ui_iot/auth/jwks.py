"""The issuer's keys in memory: fetched at start, again when they are old or do not fit a token."""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Protocol

from services.ui_iot.auth.key_set import ALGORITHM_NAMES, KeySet
from services.ui_iot.auth.provider_faults import UNREACHABLE, FaultLog, ProviderError

log = logging.getLogger(__name__)

# Forged key ids and signatures must not hammer the provider; a rotated key is found this late at most.
RETRY_SECONDS = 10.0
RETRY_WITHOUT_KEYS_SECONDS = 1.0
# A revoked key stops working this late at most.
FRESH_SECONDS = 300.0


class KeySource(Protocol):
    """Where a JWKS document comes from."""

    note: str | None
    """A fault that did not keep the last document from being read."""

    async def fetch_keys(self) -> object:
        """Return the document, decoded. Raises ProviderError."""


class Jwks:
    """Keys that survive the provider: what was fetched once stays in use until something newer arrives."""

    def __init__(
        self, source: KeySource, *, issuer: str = "the issuer", clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.issuer = issuer
        self.faults = FaultLog(log, issuer, clock=clock)
        self._source = source
        self._clock = clock
        self._keys: KeySet | None = None
        self._document: object = None
        self._fetched_at = -FRESH_SECONDS
        self._tried_at = float("-inf")
        self._refresh: asyncio.Task[None] | None = None
        self.failing = False
        """Whether the last look at the provider failed."""

    @property
    def age_seconds(self) -> float | None:
        """Seconds since the keys were last fetched; None before the first success."""
        return None if self._keys is None else self._clock() - self._fetched_at

    @property
    def usable_keys(self) -> int:
        """Number of pairs of a key and an algorithm that tokens can be verified with."""
        return len(self._keys or ())

    def current(self) -> KeySet | None:
        """Return the keys in memory, None before the first success; old ones are renewed in the background."""
        if self.failing or self._clock() - self._fetched_at > FRESH_SECONDS:
            self._start_refresh()
        return self._keys

    async def newer(self) -> KeySet | None:
        """The keys after a look at the provider, unless it was looked at just now; all who wait share one look."""
        self._start_refresh()
        if self._refresh is not None:
            # One caller that gives up must not take the answer from the others.
            await asyncio.shield(self._refresh)
        return self._keys

    async def close(self) -> None:
        """Give up a look that is under way."""
        if self._refresh is not None:
            self._refresh.cancel()
            await asyncio.gather(self._refresh, return_exceptions=True)

    def _start_refresh(self) -> None:
        pause = RETRY_SECONDS if self._keys is not None else RETRY_WITHOUT_KEYS_SECONDS
        if self._refresh is None and self._clock() - self._tried_at >= pause:
            self._tried_at = self._clock()
            self._refresh = asyncio.create_task(self._look(), name="jwks")

    async def _look(self) -> None:
        try:
            document = await self._source.fetch_keys()
            keys = KeySet.from_document(document)
        except (*UNREACHABLE, ProviderError, ValueError) as error:
            self.failing = True
            self.faults.report(str(error) or type(error).__name__, effect="the keys of the issuer cannot be fetched")
        else:
            self._take(document, keys)
        finally:
            self._refresh = None

    def _take(self, document: object, keys: KeySet) -> None:
        if self.failing:
            log.info("the keys of the issuer are fetched again", extra={"issuer": self.issuer})
        # Without a usable key every token is one of a key that we do not know: that is the provider's fault.
        self.failing = not len(keys)
        self._fetched_at = self._clock()
        # The same document keeps the same KeySet, and with it the tokens that were verified.
        if document != self._document:
            self._document, self._keys = document, keys
            log.info("keys of the issuer changed", extra={"issuer": self.issuer, "usable_keys": len(keys)})
        if self.failing:
            fault = f"its JWKS has no key for {', '.join(ALGORITHM_NAMES)}"
            self.faults.report(fault, effect="no token can be verified")
        elif self._source.note is not None:
            self.faults.report(self._source.note, effect="the issuer's answer has a fault")
        else:
            self.faults.clear()
