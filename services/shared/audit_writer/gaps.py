"""Rows that the writer adds about the trail itself: lost events, damaged spool segments and refused rows."""

import hashlib
import os
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import orjson

from services.shared import tracing
from services.shared.audit_writer.cleaning import LONGEST_NAME
from services.shared.audit_writer.event import AuditEvent
from services.shared.audit_writer.ledger import EventAccount, Remains
from services.shared.audit_writer.line import Line, make_line, read_line
from services.shared.audit_writer.spool_directory import Damage

BUFFER_FULL = "the buffer was full"
NOWHERE_TO_GO = "neither the database nor the spool took them"
_QUARANTINED = "audit.quarantined"

Keep = Callable[[Sequence[Line]], Awaitable[bool]]
"""Makes rows durable; returns False if it cannot."""


class _Gap:
    """Events that were lost for one reason: their number by type, and the first and last time."""

    def __init__(self, *, buffer: str, cause: str) -> None:
        self.count = 0
        self._buffer = buffer
        self._cause = cause
        self._by_type: Counter[str] = Counter()
        self._first_at: datetime | None = None
        self._last_at: datetime | None = None

    def add(self, line: Line) -> int:
        """Count a lost row; return the number of events that it stands for."""
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
        """Return the audit.gap row."""
        details = {
            "count": self.count,
            # A write that was given up may still succeed.
            "at_most": self._cause == NOWHERE_TO_GO,
            "by_type": dict(self._by_type),
            "first_at": self._first_at,
            "last_at": self._last_at,
            "buffer": self._buffer,
            "process": os.getpid(),
        }
        return _make_gap_line(service, f"{self.count} audit events of {service} were lost: {self._cause}", details)


class Losses:
    """Gaps that have no row in the trail yet. A gap's row is made once, so writing it again stores the same row."""

    def __init__(self, service: str, account: EventAccount, *, on_loss: Callable[[], None]) -> None:
        self.reported = 0
        self._on_loss = on_loss
        self._service = service
        self._account = account
        self._gaps: dict[tuple[str, str], _Gap] = {}
        self._made: list[tuple[Line, int]] = []

    def __len__(self) -> int:
        """Return the number of gaps without a row in the trail."""
        return len(self._gaps) + len(self._made)

    def add(self, lines: Sequence[Line], *, buffer: str, cause: str, at_ns: int) -> None:
        """Count lost rows. at_ns: the time at which the first one was taken."""
        gap = self._gaps.get((buffer, cause))
        if gap is None:
            gap = self._gaps[buffer, cause] = _Gap(buffer=buffer, cause=cause)
        self._account.take(at_ns, sum(gap.add(line) for line in lines))
        self._on_loss()

    async def report(self, keep: Keep) -> bool:
        """Write the rows; return False if some must be written later."""
        while self:
            if not self._made:
                gaps, self._gaps = self._gaps, {}
                self._made = [(gap.make_line(self._service), gap.count) for gap in gaps.values()]
            made = self._made
            if not await keep([line for line, _ in made]):
                return False
            self._made = []
            self._account.settle(sum(count for _, count in made))
            self.reported += len(made)
        return True


def make_remains_line(remains: Remains) -> Line:
    """Return the audit.gap row about a process that died; the same row each time."""
    count = sum(remains.counts.values())
    return _make_gap_line(
        remains.service,
        f"at most {count} audit events of {remains.service} were lost: process {remains.process} died",
        {
            "count": count,
            "at_most": True,
            "by_buffer": remains.counts,
            "first_at": remains.first_at,
            "last_at": remains.last_at,
            "process": remains.process,
        },
        timestamp=remains.last_at,
        event_id=remains.event_id,
    )


def make_damage_line(file: Path, damages: Sequence[Damage], service: str) -> Line:
    """Return the audit.gap row about unreadable bytes; the same row each time for the same file."""
    written_at = datetime.fromtimestamp(file.stat().st_mtime, UTC)
    digest = hashlib.sha256(file.name.encode() + file.read_bytes()).digest()
    lost_bytes = sum(damage.length for damage in damages)
    return _make_gap_line(
        service,
        f"{lost_bytes} bytes of the audit spool could not be read",
        {
            # The number of events is unknown: at least one for each place.
            "count": len(damages),
            "at_least": True,
            "file": f"{file.parent.name}/{file.name}",
            "bytes": lost_bytes,
            "places": [{"offset": damage.offset, "length": damage.length} for damage in damages[:20]],
            "last_at": written_at,
        },
        timestamp=written_at,
        event_id=UUID(bytes=digest[:16], version=5),
    )


def make_quarantine_line(line: Line, error: BaseException) -> Line:
    """Return a row with the refused event's id, time and trace, and the event as ASCII text in its details."""
    event = read_line(line)
    rendering = {name: ascii(value)[:LONGEST_NAME] for name, value in event.items() if value is not None}
    return _make_own_line(
        event["source_service"] or "",
        "an event could not be stored as it was",
        {"error": type(error).__name__, "sqlstate": getattr(error, "sqlstate", None), "event": rendering},
        event_type=_QUARANTINED,
        trace_id=tracing.parse_trace_id(event["trace_id"]),
        timestamp=datetime.fromisoformat(event["timestamp"] or ""),
        event_id=UUID(event["event_id"]),
    )


def is_quarantine(line: Line) -> bool:
    """Return whether make_quarantine_line made the row."""
    return line.startswith(_QUARANTINED)


def _make_own_line(service: str, message: str, details: Mapping[str, Any], **columns: Any) -> Line:
    """Return a row whose actor is the service itself. columns: further ones of the event."""
    event = AuditEvent(
        severity="error",
        message=message,
        details=details,
        actor_type="service",
        actor_id=service,
        **columns,
    )
    return make_line(event, service)


def _make_gap_line(service: str, message: str, details: Mapping[str, Any], **columns: Any) -> Line:
    return _make_own_line(service, message, details, event_type="audit.gap", trace_id=None, **columns)
