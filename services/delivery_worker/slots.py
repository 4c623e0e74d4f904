"""Notices of free slots."""

import asyncio


class Slots:
    """What happens when a slot becomes free. due: wakes the claim loop."""

    def __init__(self, due: asyncio.Event) -> None:
        self.freed = asyncio.Event()
        self.are_shared = False
        """Whether a tenant may have as many slots as it can get, so that its other jobs wait for one of its own."""
        self._due = due

    def free(self) -> None:
        """Let the claim loop go on, also when it waits for work although slots are free."""
        self.freed.set()
        if self.are_shared:
            self._due.set()
