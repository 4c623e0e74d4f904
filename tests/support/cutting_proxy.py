"""A proxy in front of Postgres that cuts or stalls the connection around a commit."""

from collections.abc import Iterator

from tests.chaos.proxy import Cut, Message, MessageProxy

__all__ = ["Cut", "CuttingProxy"]


class CuttingProxy(MessageProxy):
    """A proxy that asks its plan at each message that makes the server commit; `cuts` lists the plan's answers."""

    def __init__(self, url: str, plan: Iterator[Cut] | None = None) -> None:
        super().__init__(url, self._choose)
        self.cuts: list[Cut] = []
        self._plan = plan or iter(())

    def _choose(self, message: Message) -> Cut:
        if not message.commits:
            return "pass"
        self.cuts.append(next(self._plan, "pass"))
        return self.cuts[-1]
