"""A day without attacks: requests of the people, browsers, gateways and health checks of a fleet and an office.

Modeled on the ways in which clients fail, and generated from a seed: every run sees the same day.
"""

import hashlib
import random
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg
import orjson

MIDNIGHT = datetime(2026, 1, 5, tzinfo=UTC)
OFFICE = "198.51.100.7"
"""One address for everybody in the office."""
OFFICE_USERS = 200
REMOTE_USERS = 100
COLUMNS = (
    "tenant_id",
    "timestamp",
    "event_id",
    "recorded_at",
    "event_type",
    "category",
    "severity",
    "action",
    "message",
    "details",
    "source_service",
    "actor_type",
    "actor_id",
    "ip_address",
)


def account(name: str) -> str:
    """Return the pseudonym of a user's name."""
    return "acct_" + hashlib.sha256(name.encode()).hexdigest()[:32]


def at(hour: float, *, seconds: float = 0.0) -> datetime:
    """Return a moment of the day."""
    return MIDNIGHT + timedelta(hours=hour, seconds=seconds)


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """One auth event. user: the account's name, None when the token names none; recorded: when it arrived."""

    when: datetime
    address: str | None
    user: str | None = None
    reason: str | None = None
    count: int | None = None
    recorded: datetime | None = None

    def row(self, number: int) -> tuple[Any, ...]:
        """Return the row that the API writes."""
        action = "login_success" if self.reason is None else "login_failure"
        proven = self.user is not None and self.reason in (None, "expired")
        details: dict[str, Any] = {"path": "/api/v1/alerts"}
        if self.user is not None:
            details["account"] = account(self.user)
        if self.reason is not None:
            details["reason"] = self.reason
        if self.count is not None:
            details |= {"aggregated": True, "count": self.count}
        return (
            "acme" if proven else "system",
            self.when,
            UUID(int=number),
            self.recorded or self.when + timedelta(milliseconds=20),
            f"auth.{action}",
            "auth",
            "info" if self.reason is None else "warning",
            action,
            "",
            orjson.dumps(details).decode(),
            "ui_iot",
            "user" if proven else "anonymous",
            self.user if proven else None,
            self.address,
        )


@dataclass(slots=True)
class Day:
    """The events of a day in the making."""

    seed: int
    logins: list[Login] = field(default_factory=list)
    dice: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self.dice = random.Random(self.seed)

    def add(self, when: datetime, address: str | None, user: str | None = None, reason: str | None = None) -> None:
        """Add one event to the day."""
        self.logins.append(Login(when=when, address=address, user=user, reason=reason))


def make_day(seed: int = 1) -> list[Login]:
    """Return the day."""
    day = Day(seed)
    for number in range(OFFICE_USERS):
        _work(day, f"office-{number}", OFFICE)
    for number in range(REMOTE_USERS):
        # Every other person has IPv6 and changes the address within a /64.
        v6 = number % 2 == 1
        _work(day, f"remote-{number}", f"2001:db8:{number:x}::" if v6 else f"203.0.113.{number}")
    _change_signing_key(day)
    _break_gateway(day)
    _ask_health(day)
    _paste_wrong_tokens(day)
    return sorted(day.logins, key=lambda login: login.when)


def _work(day: Day, user: str, address: str) -> None:
    """Make requests from nine to five; tokens expire now and then, all after lunch, and are renewed."""
    when = at(8.5 + day.dice.random())
    while when < at(17.5):
        source = address + f"{day.dice.randrange(1, 65000):x}" if address.endswith("::") else address
        if day.dice.random() < 0.1:
            for _ in range(day.dice.randrange(1, 4)):
                day.add(when, source, user, "expired")
        day.add(when + timedelta(seconds=1), source, user)
        when += timedelta(minutes=day.dice.uniform(5, 40))
    for number in range(5):
        day.add(at(13, seconds=number), address + "1" if address.endswith("::") else address, user, "expired")


def _change_signing_key(day: Day) -> None:
    """Change the issuer's key at eleven without notice: every open browser fails a few times and signs in again."""
    seen: dict[str, Login] = {}
    for login in day.logins:
        if login.reason is None and at(10.2) < login.when < at(11) and login.user is not None:
            seen[login.user] = login
    for user, login in seen.items():
        start = at(11, seconds=day.dice.uniform(0, 90))
        for number in range(day.dice.randrange(1, 4)):
            day.add(start + timedelta(seconds=number), login.address, user, "unknown_key")
        day.add(start + timedelta(seconds=5), login.address, user)


def _break_gateway(day: Day) -> None:
    """Let a gateway with a rotated token retry all day, ten times a second: single rows first, then aggregates."""
    for number in range(50):
        day.add(at(2, seconds=number / 10), "192.0.2.50", None, "invalid_token")
    day.logins.extend(
        Login(when=at(2, seconds=60.0 * minute), address="192.0.2.50", reason="invalid_token", count=600)
        for minute in range(1, 20 * 60)
    )


def _ask_health(day: Day) -> None:
    """Let a load balancer and a crawler call without a token."""
    for minute in range(24 * 60):
        day.add(at(0, seconds=60 * minute), "10.0.0.2", None, "missing_token")


def _paste_wrong_tokens(day: Day) -> None:
    """Some people paste half a token or one of the test system: a few failures, then the right one."""
    for number in range(0, OFFICE_USERS, 8):
        start = at(9 + day.dice.random() * 8)
        for attempt in range(day.dice.randrange(1, 6)):
            day.add(start + timedelta(seconds=20 * attempt), OFFICE, f"office-{number}", "invalid_token")
        day.add(start + timedelta(minutes=3), OFFICE, f"office-{number}")
    # A dashboard with a token of the test system asks every minute for two hours.
    for minute in range(120):
        day.add(at(14, seconds=60 * minute), OFFICE, "dashboard", "unknown_key")


async def store(conn: asyncpg.Connection, logins: Iterable[Login], *, first_number: int = 1) -> None:
    """Write the events. conn is the superuser's, because the arrival times are part of the day."""
    rows = [login.row(number) for number, login in enumerate(logins, first_number)]
    await conn.copy_records_to_table("audit_log", records=rows, columns=COLUMNS)
