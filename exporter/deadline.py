"""The deadline of a pass: the latest that its scrapers allow, within the longest time of a pass."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

# With less time, a view would be canceled before it starts.
LEAST_SECONDS = 0.005


class Deadline:
    """The end of one pass, which starts with this object. Scrapers that join the pass can only extend it."""

    def __init__(self, seconds: float, *, longest: float) -> None:
        now = asyncio.get_running_loop().time()
        self._latest = now + longest
        self._at = min(now + seconds, self._latest)
        self._grace = 0.0
        self._timer: asyncio.Timeout | None = None

    def left(self) -> float:
        """Return the seconds until the deadline, negative after it."""
        return self._at - asyncio.get_running_loop().time()

    def put_off(self, seconds: float) -> bool:
        """Extend the deadline to this time from now, within the longest pass. Return False if it is over.

        Views that were left out at the deadline would not be read in this pass.
        """
        if self.left() < LEAST_SECONDS:
            return False
        self._at = max(self._at, min(asyncio.get_running_loop().time() + seconds, self._latest))
        if self._timer is not None and not self._timer.expired():
            self._timer.reschedule(self._at + self._grace)
        return True

    @asynccontextmanager
    async def enforce(self, *, grace: float) -> AsyncIterator[None]:
        """Raise TimeoutError from the block at the deadline plus a grace period in seconds."""
        self._grace = grace
        try:
            async with asyncio.timeout_at(self._at + grace) as self._timer:
                yield
        finally:
            self._timer = None
