"""Script of the run's proxy. All messages pass until a cut is ordered, which hits one message."""

import asyncio
from dataclasses import dataclass, field

from tests.chaos.proxy import Cut, Message, Side


@dataclass(slots=True, eq=False)
class Order:
    """Cut at one of the next messages of a sender, or at one of the next commits."""

    cut: Cut
    sender: Side
    only_commits: bool
    skip: int
    made: asyncio.Event = field(default_factory=asyncio.Event)


class Cuts:
    """Decisions about messages. Several orders may wait at the same time."""

    def __init__(self) -> None:
        self._orders: list[Order] = []

    def __call__(self, message: Message) -> Cut:
        """Return what becomes of the message."""
        for order in self._orders:
            if not message.commits if order.only_commits else message.sender != order.sender:
                continue
            if order.skip == 0:
                self._orders.remove(order)
                order.made.set()
                return order.cut
            order.skip -= 1
        return "pass"

    async def make(self, order: Order, *, seconds: float) -> bool:
        """Return whether the cut was made in time; if not, it is taken back."""
        self._orders.append(order)
        try:
            async with asyncio.timeout(seconds):
                return await order.made.wait()
        except TimeoutError:
            return False
        finally:
            if order in self._orders:
                self._orders.remove(order)
