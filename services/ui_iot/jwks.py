"""The issuer's keys in memory: fetched at start, again when they are old or a token names an unknown one."""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Protocol

from services.ui_iot.oidc import UNREACHABLE, ProviderError
from services.ui_iot.tokens import KeySet

log = logging.getLogger(__name__)

# Forged key ids must not hammer the provider; a rotated key is found this late at most.
RETRY_SECONDS = 10.0
RETRY_WITHOUT_KEYS_SECONDS = 1.0
# A revoked key stops working this late at most.
FRESH_SECONDS = 300.0


class KeySource(Protocol):
    """Where a JWKS document comes from."""

    async def fetch_keys(self) -> object:
        """The document, decoded."""


class Jwks:
    """Keys that survive the provider: what was fetched once stays in use until something newer arrives."""

    def __init__(self, source: KeySource, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._source = source
        self._clock = clock
        self._keys: KeySet | None = None
        self._document: object = None
        self._fetched_at = -FRESH_SECONDS
        self._tried_at = float("-inf")
        self._refresh: asyncio.Task[None] | None = None
        self.failing = False
        """Whether the last look at the provider failed."""

    def current(self) -> KeySet | None:
        """The keys in memory, None before the first success; old ones are renewed behind the caller's back."""
        if self._clock() - self._fetched_at > FRESH_SECONDS:
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
            log.warning("keys of the issuer cannot be fetched: %s", type(error).__name__)
        else:
            self.failing = False
            self._fetched_at = self._clock()
            # The same document keeps the same KeySet, and with it the tokens that were verified.
            if document != self._document:
                self._document, self._keys = document, keys
                log.info("keys of the issuer changed", extra={"usable_keys": len(keys)})
        finally:
            self._refresh = None
