"""Work that holds the event loop for long, one piece at a time."""

import asyncio
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

_ROUNDS = 8
"""Passes of the event loop between two pieces of work. A request on a new connection is answered within six."""


class Turns:
    """Lets one piece of work at a time have the event loop, and all others in between."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()

    async def take(self, work: Callable[[], T]) -> T:
        """Return the result of work, done when it is its turn."""
        async with self._lock:
            try:
                return work()
            finally:
                for _ in range(_ROUNDS):
                    await asyncio.sleep(0)
