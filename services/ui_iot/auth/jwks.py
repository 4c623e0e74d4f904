"""An issuer's keys in memory: fetched at the start, and again when they are old or do not fit a token."""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Protocol

from services.ui_iot.auth.key_set import ALGORITHM_NAMES, KeySet
from services.ui_iot.auth.provider_faults import UNREACHABLE, FaultLog, ProviderError

log = logging.getLogger(__name__)

# Forged key ids and signatures must not flood the provider. A rotated key is found after this time at the latest.
RETRY_SECONDS = 10.0
RETRY_WITHOUT_KEYS_SECONDS = 1.0
# A revoked key stops working after this time at the latest.
FRESH_SECONDS = 300.0


class KeySource(Protocol):
    """Source of a JWKS document."""

    note: str | None
    """A fault of the last document that did not prevent reading it."""

    async def fetch_keys(self) -> object:
        """Return the document, decoded. Raises ProviderError."""


class Jwks:
    """Keys that outlast outages of the provider: fetched keys stay in use until newer ones arrive."""

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
        """The last fetch failed, or the document has no usable key."""

    @property
    def age_seconds(self) -> float | None:
        """Seconds since the keys were last fetched, or None before the first success."""
        return None if self._keys is None else self._clock() - self._fetched_at

    @property
    def usable_keys(self) -> int:
        """Number of pairs of a key and an algorithm that tokens can be verified with."""
        return len(self._keys or ())

    def current(self) -> KeySet | None:
        """Return the keys in memory, or None before the first success. Old keys are renewed in the background."""
        if self.failing or self._clock() - self._fetched_at > FRESH_SECONDS:
            self._start_refresh()
        return self._keys

    async def newer(self) -> KeySet | None:
        """Return the keys after a fetch, unless one was tried a moment ago. All callers share one fetch."""
        self._start_refresh()
        if self._refresh is not None:
            # Shielded: a canceled caller must not cancel the fetch for the other callers.
            await asyncio.shield(self._refresh)
        return self._keys

    async def close(self) -> None:
        """Cancel a fetch that is under way."""
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
        # Without a usable key, every token would have an unknown key. This is the provider's fault.
        self.failing = not len(keys)
        self._fetched_at = self._clock()
        # An equal document keeps the KeySet, and with it the cache of verified tokens.
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
