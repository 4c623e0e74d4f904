"""Aggregation of repeated events: the first of a window get a row each, the rest are counted, in bounded memory."""

import time
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from dataclasses import replace
from ipaddress import IPv6Address, ip_address
from typing import Any, ClassVar

import orjson

from services.shared.audit_writer.event import AuditEvent, new_event_id
from services.shared.audit_writer.ledger import EventAccount
from services.shared.audit_writer.line import Line, make_line, parse_address

# About 3 MB when full. Then the window of the least recently seen key ends early.
MOST_KEYS = 10_000
# Members that are counted separately in one window.
MOST_MEMBERS = 20


class Tally:
    """Events of one member of a window: their number, the first one and the time of the last."""

    __slots__ = ("count", "example", "last_at")

    def __init__(self, example: AuditEvent) -> None:
        self.count = 0
        self.example = example
        self.last_at = example.timestamp

    def add(self, other: "Tally") -> None:
        """Merge another tally into this one."""
        self.count += other.count
        self.last_at = max(self.last_at, other.last_at)
        if other.example.timestamp < self.example.timestamp:
            self.example = other.example

    def as_details(self) -> dict[str, Any]:
        """Return the members that the details of each aggregated event have."""
        return {
            "aggregated": True,
            "count": self.count,
            "first_at": self.example.timestamp.isoformat(),
            "last_at": self.last_at.isoformat(),
        }


class _Window:
    __slots__ = ("ends_at", "single", "tallies")

    def __init__(self, ends_at: float) -> None:
        self.ends_at = ends_at
        self.single = 0
        self.tallies: dict[str | None, Tally] = {}
        """By member; None counts the rest."""

    def count(self, member: str | None, event: AuditEvent) -> None:
        """Count an event; if there is no room for a new member, the one with the lowest count joins the rest."""
        if member not in self.tallies and len(self.tallies) > MOST_MEMBERS:
            least = min((name for name in self.tallies if name is not None), key=lambda name: self.tallies[name].count)
            self.tallies.setdefault(None, Tally(event)).add(self.tallies.pop(least))
        tally = self.tallies.setdefault(member, Tally(event))
        tally.count += 1
        tally.last_at = event.timestamp


class Windows(ABC):
    """Decides which events get a row each. rows: number of such rows in a window, 0 for all."""

    buffer: ClassVar[str] = "events"
    """Name of the buffer for the aggregated rows, shown in the event that reports their loss."""

    def __init__(
        self,
        *,
        rows: int,
        seconds: float,
        service: str,
        account: EventAccount,
        on_due: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
        most_keys: int = MOST_KEYS,
    ) -> None:
        self.aggregated = 0
        self._rows = rows
        self._seconds = seconds
        self._service = service
        self._account = account
        self._on_due = on_due
        self._clock = clock
        self._most_keys = most_keys
        self._windows: OrderedDict[Hashable, _Window] = OrderedDict()
        self._counting: dict[Hashable, _Window] = {}
        self._due: list[tuple[Line, int]] = []

    def __len__(self) -> int:
        """Return the number of remembered keys."""
        return len(self._windows)

    def next_seconds(self) -> float | None:
        """Return the seconds until a row is due, None if nothing is counted."""
        if self._due:
            return 0.0
        # A window starts to count after it begins, so the first that counted need not be the first to end.
        ends_at = min((window.ends_at for window in self._counting.values()), default=None)
        return None if ends_at is None else max(0.0, ends_at - self._clock())

    def take_due(self, *, everything: bool = False) -> list[tuple[Line, int]]:
        """Return the rows of ended windows, each with its number of events; call settle() once they are durable."""
        now = self._clock()
        for key in [key for key, window in self._counting.items() if everything or window.ends_at <= now]:
            self._end(key)
        due, self._due = self._due, []
        return due

    def settle(self, count: int) -> None:
        """Release so many events: their rows are durable or were reported as lost."""
        self._account.settle(count)

    def _admits(self, key: Hashable, member: str | None, event: AuditEvent) -> bool:
        if not self._rows:
            return True
        now = self._clock()
        window = self._windows.get(key)
        if window is None or window.ends_at <= now:
            self._end(key)
            window = self._windows[key] = _Window(now + self._seconds)
            if len(self._windows) > self._most_keys:
                self._end(next(iter(self._windows)))
        self._windows.move_to_end(key)
        if window.single < self._rows:
            window.single += 1
            return True
        if not window.tallies:
            self._counting[key] = window
            self._on_due()
        window.count(member, event)
        self.aggregated += 1
        self._account.take(time.time_ns())
        return False

    def _end(self, key: Hashable) -> None:
        window = self._windows.pop(key, None)
        self._counting.pop(key, None)
        if window is None or not window.tallies:
            return
        for event, count in self._aggregate(window.tallies):
            self._due.append((make_line(event, self._service), count))
        self._on_due()

    @abstractmethod
    def _aggregate(self, tallies: dict[str | None, Tally]) -> Iterator[tuple[AuditEvent, int]]:
        """Return the events of an ended window, each with the number of events it stands for."""


def address_group(event: AuditEvent) -> Hashable:
    """Return the address; an IPv6 /64 belongs to one customer and counts as one address."""
    address = event.ip_address
    if isinstance(address, str):
        text = parse_address(address)
        address = None if text is None else ip_address(text)
    return (6, int(address) >> 64) if isinstance(address, IPv6Address) else address


class Flood(Windows):
    """Refused requests by address, reason and, for rate_limited, cause.

    An attacker can neither fill the disk nor hide. The accounts tried most often are counted separately, because noise
    could otherwise fill a window and hide the attempts on one account.
    """

    buffer = "auth_failures"

    def admits(self, event: AuditEvent) -> bool:
        """Return whether the event gets its own row; if not, count it."""
        details = event.details
        key = (address_group(event), details.get("reason"), details.get("cause"))
        return self._admits(key, details.get("account"), event)

    def _aggregate(self, tallies: dict[str | None, Tally]) -> Iterator[tuple[AuditEvent, int]]:
        for account, tally in tallies.items():
            reason = tally.example.details.get("reason")
            details = {**tally.as_details(), "reason": reason}
            # audit._tries counts attempts beyond the limit by their cause.
            if "cause" in tally.example.details:
                details["cause"] = tally.example.details["cause"]
            event = replace(
                tally.example,
                message=f"{tally.count} more callers turned away: {reason}",
                # The callers may differ. They share the address, the reason and the claimed account.
                tenant_id="system",
                actor_type="anonymous",
                actor_id=None,
                actor_name=None,
                entity_type=None,
                entity_id=None,
                trace_id=None,
                duration_ms=None,
                details=details if account is None else {**details, "account": account},
                timestamp=tally.last_at,
                event_id=new_event_id(),
            )
            yield event, tally.count


# Details of a single request, left out of the aggregate.
_PARTICULAR = ("span_id", "parent_span_id", "parent_trace_id", "path", "filter", "events")


class Reads(Windows):
    """Repeated successful reads by kind, caller and address, so a caller's new address shows at once.

    A page that polls would otherwise fill the trail, which keeps its rows for years. The first read of a window is
    durable before it is answered. A row at the window's end counts the others and names the most frequent ones.
    """

    def admits(self, event: AuditEvent, kind: str) -> bool:
        """Return whether the event gets its own row; if not, count it."""
        caller = (event.tenant_id, event.actor_type, event.actor_id, event.details.get("role"))
        return self._admits((event.event_type, kind, *caller, address_group(event)), _subject(event), event)

    def _aggregate(self, tallies: dict[str | None, Tally]) -> Iterator[tuple[AuditEvent, int]]:
        whole = Tally(next(iter(tallies.values())).example)
        for tally in tallies.values():
            whole.add(tally)
        most = sorted(tallies.items(), key=lambda item: -item[1].count)
        details = {
            **{name: value for name, value in whole.example.details.items() if name not in _PARTICULAR},
            **whole.as_details(),
            "reads": [{"read": subject or "others", "count": tally.count} for subject, tally in most],
        }
        event = replace(
            whole.example,
            message=f"{whole.count} more times: {whole.example.message}",
            trace_id=None,
            duration_ms=None,
            details=details,
            timestamp=whole.last_at,
            event_id=new_event_id(),
        )
        yield event, whole.count


def _subject(event: AuditEvent) -> str:
    """Return what was read: the path of a request, or the filter of a look at the audit trail."""
    path = event.details.get("path")
    return str(path) if path is not None else orjson.dumps(event.details.get("filter"), default=str).decode()[:500]
