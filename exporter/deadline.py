"""When a pass must be over: as late as the most patient of its scrapers allows, within the longest a pass may take."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

# With less a view would be cancelled before it had begun.
LEAST_SECONDS = 0.005


class Deadline:
    """The end of one pass, which begins with it; who joins the pass can put it off, never bring it forward."""

    def __init__(self, seconds: float, *, longest: float) -> None:
        now = asyncio.get_running_loop().time()
        self._latest = now + longest
        self._at = min(now + seconds, self._latest)
        self._grace = 0.0
        self._timer: asyncio.Timeout | None = None

    def left(self) -> float:
        """Seconds until then, negative when it is over."""
        return self._at - asyncio.get_running_loop().time()

    def put_off(self, seconds: float) -> bool:
        """Leave at least so many seconds from now, as far as the longest pass allows.

        Whether it could: once the time is over, views have been left out that would never be asked again.
        """
        if self.left() < LEAST_SECONDS:
            return False
        self._at = max(self._at, min(asyncio.get_running_loop().time() + seconds, self._latest))
        if self._timer is not None and not self._timer.expired():
            self._timer.reschedule(self._at + self._grace)
        return True

    @asynccontextmanager
    async def enforce(self, *, grace: float) -> AsyncIterator[None]:
        """Raise TimeoutError out of the block when it is not over by then and a grace in seconds."""
        self._grace = grace
        try:
            async with asyncio.timeout_at(self._at + grace) as self._timer:
                yield
        finally:
            self._timer = None
