"""Passes that give up a lock at once, because writers would queue behind a waiting pass."""

import logging
from dataclasses import dataclass

from asyncpg import LockNotAvailableError

from services.shared.db import Pool
from services.shared.worker import describe, find_suspects

log = logging.getLogger(__name__)


@dataclass(slots=True)
class LockWait:
    """The state of a worker whose passes may give up. what: the subject of its log line."""

    what: str
    has_given_up: bool = False

    async def give_up(self, pool: Pool, error: LockNotAvailableError) -> None:
        """Log the sessions that may hold the lock, and leave the work to the next pass.

        Raises the error if the last pass gave up as well, because the lock was then missing for a whole interval.
        """
        if self.has_given_up:
            self.has_given_up = False
            raise error
        self.has_given_up = True
        suspects = await find_suspects(pool)
        log.info(
            "%s waits for the next pass: %s; blocked by %s",
            self.what,
            error,
            describe(suspects) or "no session any more",
            extra={"blockers": [{"pid": session["pid"], "role": session["role"]} for session in suspects]},
        )

    def end(self) -> None:
        """Record a pass that got its locks."""
        self.has_given_up = False
