"""Events that are lost, until a row in the trail says so."""

import os
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime

import orjson

from services.shared.audit_writer.event import AuditEvent
from services.shared.audit_writer.ledger import Account
from services.shared.audit_writer.line import Line, make_line, read_line

BUFFER_FULL = "the buffer was full"
NOWHERE_TO_GO = "neither the database nor the spool took them"

Keep = Callable[[Sequence[Line]], Awaitable[bool]]
"""Makes rows durable; False when it cannot."""


class Gap:
    """Events that were lost for one reason: how many of which type, between which times."""

    def __init__(self, *, buffer: str, cause: str) -> None:
        self.count = 0
        self._buffer = buffer
        self._cause = cause
        self._by_type: Counter[str] = Counter()
        self._first_at: datetime | None = None
        self._last_at: datetime | None = None

    def add(self, line: Line) -> int:
        """Count one lost row; how many events it stood for."""
        row = read_line(line)
        details = orjson.loads(row["details"] or "{}")
        count = details["count"] if "aggregated" in details else 1
        at = datetime.fromisoformat(row["timestamp"] or "")
        self.count += count
        self._by_type[row["event_type"] or ""] += count
        self._first_at = min(self._first_at or at, at)
        self._last_at = max(self._last_at or at, at)
        return int(count)

    def make_line(self, service: str) -> Line:
        """The audit.gap row that stands for them."""
        return make_line(
            AuditEvent(
                event_type="audit.gap",
                severity="error",
                message=f"{self.count} audit events of {service} were lost: {self._cause}",
                details={
                    "count": self.count,
                    # A write that nobody waits for any more may still succeed.
                    "at_most": self._cause == NOWHERE_TO_GO,
                    "by_type": dict(self._by_type),
                    "first_at": self._first_at,
                    "last_at": self._last_at,
                    "buffer": self._buffer,
                    "process": os.getpid(),
                },
                actor_type="service",
                actor_id=service,
                trace_id=None,
            ),
            service,
        )


class Losses:
    """The gaps not told yet. A gap's row is made once: repeated, it is the same row."""

    def __init__(self, service: str, account: Account, *, on_loss: Callable[[], None]) -> None:
        self.told = 0
        self._on_loss = on_loss
        self._service = service
        self._account = account
        self._gaps: dict[tuple[str, str], Gap] = {}
        self._made: list[tuple[Line, int]] = []

    def __len__(self) -> int:
        """Gaps without a row in the trail."""
        return len(self._gaps) + len(self._made)

    def add(self, lines: Sequence[Line], *, buffer: str, cause: str, at_ns: int) -> None:
        """These rows are lost; at_ns: when the first of them was taken."""
        gap = self._gaps.get((buffer, cause))
        if gap is None:
            gap = self._gaps[buffer, cause] = Gap(buffer=buffer, cause=cause)
        self._account.take(at_ns, sum(gap.add(line) for line in lines))
        self._on_loss()

    async def tell(self, keep: Keep) -> bool:
        """Write the rows; False when they must be told later."""
        while self:
            if not self._made:
                gaps, self._gaps = self._gaps, {}
                self._made = [(gap.make_line(self._service), gap.count) for gap in gaps.values()]
            made = self._made
            if not await keep([line for line, _ in made]):
                return False
            self._made = []
            self._account.settle(sum(count for _, count in made))
            self.told += len(made)
        return True
