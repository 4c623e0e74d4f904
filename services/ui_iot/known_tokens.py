"""Which tokens were good lately, so that failures of a neighbour behind the same address do not lock them out."""

import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable

# The longest a fleet behind one address may stay silent and still be told from strangers.
KNOWN_SECONDS = 3600.0
# About 2 MB when full; then the token that was shown longest ago is forgotten first.
MOST_TOKENS = 10_000


class KnownTokens:
    """Digests of tokens that were valid within the last hour. Being known lets none in: it is still checked in full."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic, most_tokens: int = MOST_TOKENS) -> None:
        self._clock = clock
        self._most_tokens = most_tokens
        self._seen_at: OrderedDict[bytes, float] = OrderedDict()

    def note(self, token: str) -> None:
        """The token was valid now."""
        digest = _digest(token)
        self._seen_at[digest] = self._clock()
        self._seen_at.move_to_end(digest)
        if len(self._seen_at) > self._most_tokens:
            self._seen_at.popitem(last=False)

    def forget(self, token: str) -> None:
        """The token is not valid any more."""
        self._seen_at.pop(_digest(token), None)

    def is_known(self, token: str) -> bool:
        """Whether the token was valid within the last hour."""
        seen_at = self._seen_at.get(_digest(token))
        return seen_at is not None and self._clock() - seen_at < KNOWN_SECONDS


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "replace")).digest()
