"""Events of one kind within a window: the first are rows of their own, the rest is counted, in bounded memory."""

import time
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from dataclasses import replace
from ipaddress import IPv6Address, ip_address
from typing import ClassVar

import orjson

from services.shared.audit_writer.event import AuditEvent, new_event_id
from services.shared.audit_writer.ledger import Account
from services.shared.audit_writer.line import Line, make_line, parse_address

# About 3 MB when full; then the key that was seen longest ago gets its rows first.
MOST_KEYS = 10_000
# Members that are counted apart in one window.
MOST_MEMBERS = 20


class Tally:
    """Events of one member of a window: how many, the first and the time of the last."""

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


class _Window:
    __slots__ = ("ends_at", "single", "tallies")

    def __init__(self, ends_at: float) -> None:
        self.ends_at = ends_at
        self.single = 0
        self.tallies: dict[str | None, Tally] = {}
        """By member; None for the rest."""

    def count(self, member: str | None, event: AuditEvent) -> None:
        """Count one; the member with the lowest count makes room for a new one and counts as rest."""
        if member not in self.tallies and len(self.tallies) > MOST_MEMBERS:
            least = min((name for name in self.tallies if name is not None), key=lambda name: self.tallies[name].count)
            self._tally(None, event).add(self.tallies.pop(least))
        tally = self._tally(member, event)
        tally.count += 1
        tally.last_at = event.timestamp

    def _tally(self, member: str | None, event: AuditEvent) -> Tally:
        return self.tallies.setdefault(member, Tally(event))


class Windows(ABC):
    """Decides for each event whether it is a row of its own. rows: how many are in a window, 0 for all."""

    buffer: ClassVar[str] = "events"
    """Name of the buffer that a row would have waited in, for the event that says that it is lost."""

    def __init__(
        self,
        *,
        rows: int,
        seconds: float,
        service: str,
        account: Account,
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
        """Keys that are remembered."""
        return len(self._windows)

    def next_seconds(self) -> float | None:
        """Seconds until a row is due; None when nothing is counted."""
        if self._due:
            return 0.0
        # Windows are as long as each other, so the first one that began to count need not be the first to end.
        ends_at = min((window.ends_at for window in self._counting.values()), default=None)
        return None if ends_at is None else max(0.0, ends_at - self._clock())

    def take_due(self, *, everything: bool = False) -> list[tuple[Line, int]]:
        """Rows of the windows that are over, with how many events each stands for; settle() when they are durable."""
        now = self._clock()
        for key in [key for key, window in self._counting.items() if everything or window.ends_at <= now]:
            self._end(key)
        due, self._due = self._due, []
        return due

    def settle(self, count: int) -> None:
        """Rows for so many events are durable, or somebody else answers for them."""
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
        """Return the events of a window that is over, and how many each stands for."""


def address_group(event: AuditEvent) -> Hashable:
    """Return the address; all of a /64 is one customer's and one address here."""
    address = event.ip_address
    if isinstance(address, str):
        text = parse_address(address)
        address = None if text is None else ip_address(text)
    return (6, int(address) >> 64) if isinstance(address, IPv6Address) else address


class Flood(Windows):
    """Refused requests, by address, reason, and of a rate_limited refusal its cause."""

    buffer = "auth_failures"

    def admits(self, event: AuditEvent) -> bool:
        """Return whether it is to be a row of its own; when not, it is counted."""
        details = event.details
        key = (address_group(event), details.get("reason"), details.get("cause"))
        return self._admits(key, details.get("account"), event)

    def _aggregate(self, tallies: dict[str | None, Tally]) -> Iterator[tuple[AuditEvent, int]]:
        for account, tally in tallies.items():
            yield _aggregate(account, tally), tally.count


def _aggregate(account: str | None, tally: Tally) -> AuditEvent:
    reason = tally.example.details.get("reason")
    details = {
        "aggregated": True,
        "count": tally.count,
        "first_at": tally.example.timestamp.isoformat(),
        "last_at": tally.last_at.isoformat(),
        "reason": reason,
    }
    # What was tried beyond the limit: audit._tries counts it by its cause.
    if "cause" in tally.example.details:
        details["cause"] = tally.example.details["cause"]
    return replace(
        tally.example,
        message=f"{tally.count} more callers turned away: {reason}",
        # Each may have been somebody else; what they have in common is where they came from, why and as whom.
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


# What is true of one request only.
_PARTICULAR = ("span_id", "parent_span_id", "parent_trace_id", "path", "filter", "events")


class Reads(Windows):
    """Successful reads, by kind, caller and address. An address that is new to a caller therefore shows at once."""

    def admits(self, event: AuditEvent, kind: str) -> bool:
        """Return whether it is to be a row of its own; when not, it is counted."""
        caller = (event.tenant_id, event.actor_type, event.actor_id, event.details.get("role"))
        return self._admits((event.event_type, kind, *caller, address_group(event)), _subject(event), event)

    def _aggregate(self, tallies: dict[str | None, Tally]) -> Iterator[tuple[AuditEvent, int]]:
        whole = Tally(next(iter(tallies.values())).example)
        for tally in tallies.values():
            whole.add(tally)
        most = sorted(tallies.items(), key=lambda item: -item[1].count)
        details = {
            **{name: value for name, value in whole.example.details.items() if name not in _PARTICULAR},
            "aggregated": True,
            "count": whole.count,
            "first_at": whole.example.timestamp.isoformat(),
            "last_at": whole.last_at.isoformat(),
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
