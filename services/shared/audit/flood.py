"""Refused requests beyond a rate become one row a window with their exact number.

So an attacker can neither fill the disk nor hide: the first of a window stand as rows of their own, the rest is
counted, by account for those tried most, or whoever fills a window with noise could try one account unseen.
"""

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv6Address, ip_address

from services.shared.audit.event import AuditEvent, new_event_id
from services.shared.audit.ledger import Account
from services.shared.audit.record import Line, make_line, parse_address

# About 3 MB when full; then the address that was refused longest ago gets its row first.
MOST_KEYS = 10_000
# Accounts that are counted apart in one window, and so the most rows it can end in, but one.
MOST_ACCOUNTS = 20

Key = tuple[object, object, object]
"""Address group, reason, and of a rate_limited refusal its cause."""


class _Tally:
    __slots__ = ("count", "example", "last_at")

    def __init__(self, example: AuditEvent) -> None:
        self.count = 0
        self.example = example
        self.last_at = example.timestamp

    def add(self, other: "_Tally") -> None:
        self.count += other.count
        self.last_at = max(self.last_at, other.last_at)
        if other.example.timestamp < self.example.timestamp:
            self.example = other.example


class _Window:
    __slots__ = ("ends_at", "single", "tallies")

    def __init__(self, ends_at: float) -> None:
        self.ends_at = ends_at
        self.single = 0
        self.tallies: dict[str | None, _Tally] = {}
        """By account; None for the rest."""

    def count(self, account: str | None, event: AuditEvent) -> None:
        """Count one; the account tried least makes room for a new one and counts as rest."""
        if account not in self.tallies and len(self.tallies) > MOST_ACCOUNTS:
            least = min((name for name in self.tallies if name is not None), key=lambda name: self.tallies[name].count)
            self._tally(None, event).add(self.tallies.pop(least))
        tally = self._tally(account, event)
        tally.count += 1
        tally.last_at = event.timestamp

    def _tally(self, account: str | None, event: AuditEvent) -> _Tally:
        return self.tallies.setdefault(account, _Tally(event))


class Flood:
    """Decides for each refused request whether it is a row of its own. rows: how many are in a window, 0 for all."""

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
        self._windows: OrderedDict[Key, _Window] = OrderedDict()
        self._counting: dict[Key, _Window] = {}
        self._due: list[tuple[Line, int]] = []

    def __len__(self) -> int:
        """Addresses and reasons that are remembered."""
        return len(self._windows)

    def admits(self, event: AuditEvent) -> bool:
        """Whether it is to be a row of its own; when not, it is counted."""
        if not self._rows:
            return True
        now = self._clock()
        key = (_group(event), event.details.get("reason"), event.details.get("cause"))
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
        self._count(key, window, event)
        return False

    def next_seconds(self) -> float | None:
        """Seconds until a row is due; None when nothing is counted."""
        if self._due:
            return 0.0
        # Windows are as long as each other, so the first one that began to count need not be the first to end.
        ends_at = min((window.ends_at for window in self._counting.values()), default=None)
        return None if ends_at is None else max(0.0, ends_at - self._clock())

    def take_due(self, *, everything: bool = False) -> list[tuple[Line, int]]:
        """Rows of the windows that are over, with how many requests each stands for; settle() when they are durable."""
        now = self._clock()
        for key in [key for key, window in self._counting.items() if everything or window.ends_at <= now]:
            self._end(key)
        due, self._due = self._due, []
        return due

    def settle(self, count: int) -> None:
        """Rows for so many requests are durable, or somebody else answers for them."""
        self._account.settle(count)

    def _count(self, key: Key, window: _Window, event: AuditEvent) -> None:
        if not window.tallies:
            self._counting[key] = window
            self._on_due()
        window.count(event.details.get("account"), event)
        self.aggregated += 1
        self._account.take(time.time_ns())

    def _end(self, key: Key) -> None:
        window = self._windows.pop(key, None)
        self._counting.pop(key, None)
        if window is None or not window.tallies:
            return
        for account, tally in window.tallies.items():
            self._due.append((make_line(_aggregate(account, tally), self._service), tally.count))
        self._on_due()


def _aggregate(account: str | None, tally: _Tally) -> AuditEvent:
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


def _group(event: AuditEvent) -> object:
    """The address; all of a /64 is one customer's and one address here."""
    address = event.ip_address
    if isinstance(address, str):
        text = parse_address(address)
        address = None if text is None else ip_address(text)
    return (6, int(address) >> 64) if isinstance(address, IPv6Address) else address
