"""Signals for free slots."""

import asyncio


class Slots:
    """The signals of a freed slot. due: wakes the claim loop."""

    def __init__(self, due: asyncio.Event) -> None:
        self.freed = asyncio.Event()
        self.are_shared = False
        """True if one tenant holds half of the slots or more. Its next job may then wait for the end of another."""
        self._due = due

    def free(self) -> None:
        """Wake the claim loop, which waits for a slot or, if a tenant holds many, for work."""
        self.freed.set()
        if self.are_shared:
            self._due.set()
