"""Where rows go that must not be lost: to the database while it answers in time, else to the spool.

database answers ── row stored ──▶ durable
  └─ not within the time ──▶ spool ── fsync ──▶ durable; from now on straight to the spool,
       │                                         until the keeper finds the database answering again
       └─ full or refuses ──▶ not durable: the caller is told, a gap row will say so
"""

import asyncio
from collections.abc import Callable, Sequence

from services.shared.audit_writer.database import Store
from services.shared.audit_writer.line import Line
from services.shared.audit_writer.losses import Keep
from services.shared.audit_writer.spool import Spool


class Journal:
    """Makes rows durable, one way or the other, within a time."""

    def __init__(self, spool: Spool, *, database_seconds: float, on_away: Callable[[], None]) -> None:
        self.is_away = False
        """Whether the database did not answer in time when it was last asked."""
        self.is_blocked = False
        """Whether the last rows found neither the database nor the spool."""
        self.database_seconds = database_seconds
        self._spool = spool
        self._on_away = on_away

    @property
    def longest_seconds(self) -> float:
        """Longest that a row can wait: for the batch before it, then for its own."""
        return 2 * (self.database_seconds + self._spool.seconds) + 0.5

    def through(self, store: Store) -> Keep:
        """What makes rows durable, trying this store first."""

        async def keep(lines: Sequence[Line]) -> bool:
            if not self.is_away:
                deadline = asyncio.get_running_loop().time() + self.database_seconds
                if await store.write(lines, deadline=deadline):
                    self.is_blocked = False
                    return True
                self.is_away = True
                self._on_away()
            kept = await self._spool.append(lines)
            self.is_blocked = not kept
            # Whether blocked or spooled, somebody must find out when the database is back.
            self._on_away()
            return kept

        return keep
