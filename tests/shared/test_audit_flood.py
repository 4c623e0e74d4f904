"""Floods of refused requests: bounded rows, exact numbers, bounded memory."""

import random
from collections import Counter
from datetime import datetime
from typing import Any

import asyncpg
import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from services.shared import db
from services.shared.audit import AuditEvent
from services.shared.audit_writer.aggregation import MOST_MEMBERS, Flood
from services.shared.audit_writer.ledger import EventLedger
from services.shared.audit_writer.line import read_line
from tests.support.stepped_clock import SteppedClock
from tests.support.trail import open_trail
from tests.support.wait import until

REASONS = ("expired", "invalid_token", "rate_limited")


def refusal(address: str | None, reason: str = "expired", account: str | None = None) -> AuditEvent:
    """Return a refused request."""
    kind = "auth.rate_limited" if reason == "rate_limited" else "auth.login_failure"
    details = {"reason": reason} if account is None else {"reason": reason, "account": account}
    return AuditEvent(event_type=kind, message="m", ip_address=address, details=details)


def make_flood(
    clock: SteppedClock, *, rows: int = 5, most_keys: int = 10_000, ledger: EventLedger | None = None
) -> Flood:
    """Return a flood control with windows of ten seconds."""
    account = (ledger or EventLedger(None, "ui_iot")).accounts["aggregated"]
    return Flood(
        rows=rows,
        seconds=10.0,
        service="ui_iot",
        account=account,
        on_due=lambda: None,
        clock=clock,
        most_keys=most_keys,
    )


def due(flood: Flood, *, everything: bool = False) -> list[tuple[str | None, dict[str, Any]]]:
    """Return type and details of the due rows."""
    rows = [read_line(line) for line, _ in flood.take_due(everything=everything)]
    return [(row["event_type"], orjson.loads(row["details"] or "")) for row in rows]


def test_the_first_of_a_window_are_rows_and_the_rest_is_one() -> None:
    clock = SteppedClock(0.0)
    flood = make_flood(clock)
    events = [refusal("10.1.2.3") for _ in range(12)]
    assert [flood.admits(event) for event in events] == [True] * 5 + [False] * 7
    assert due(flood) == []
    assert flood.next_seconds() == 10.0
    clock.now = 10.0
    assert due(flood) == [
        (
            "auth.login_failure",
            {
                "aggregated": True,
                "count": 7,
                "first_at": events[5].timestamp.isoformat(),
                "last_at": events[-1].timestamp.isoformat(),
                "reason": "expired",
            },
        )
    ]
    assert flood.next_seconds() is None
    assert flood.admits(refusal("10.1.2.3"))


def test_addresses_and_reasons_are_counted_apart_and_a_64_is_one_address() -> None:
    flood = make_flood(SteppedClock(0.0), rows=1)
    assert all(
        flood.admits(event)
        for event in (
            refusal("10.1.2.3"),
            refusal("10.1.2.4"),
            refusal("10.1.2.3", "invalid_token"),
            refusal("2001:db8::1"),
            refusal("2001:db8:0:1::1"),
            refusal(None),
            refusal("no address", "other"),
        )
    )
    assert not flood.admits(refusal("::ffff:10.1.2.3"))
    assert not flood.admits(refusal("2001:db8::ffff:1"))
    assert not flood.admits(refusal("not one either"))
    assert [details["count"] for _, details in due(flood, everything=True)] == [1, 1, 1]


def test_accounts_are_counted_apart_and_only_so_many() -> None:
    """Noise that fills a window hides no account; thousands of invented accounts do not get a row each."""
    flood = make_flood(SteppedClock(0.0), rows=1)
    noise = [f"made up {number}" for number in range(1000)]
    for account in ["noise", *noise[:500], *["victim"] * 30, *noise[500:], "victim"]:
        flood.admits(refusal("10.1.2.3", "invalid_token", account))
    rows = [details for _, details in due(flood, everything=True)]
    counts = {details.get("account"): details["count"] for details in rows}
    assert counts["victim"] == 31
    assert len(counts) <= MOST_MEMBERS + 2
    assert sum(counts.values()) == 1031
    # The rest spans everything merged into it: the second event of the window was the first one counted.
    (rest,) = [details for details in rows if "account" not in details]
    assert rest["first_at"] == min(details["first_at"] for details in rows)
    assert rest["first_at"] < rest["last_at"]


def test_zero_turns_it_off() -> None:
    flood = make_flood(SteppedClock(0.0), rows=0)
    assert all(flood.admits(refusal("10.1.2.3")) for _ in range(1000))
    assert len(flood) == 0


@given(seed=st.integers(0, 2**32), most_keys=st.integers(1, 8))
@settings(max_examples=100, deadline=None)
def test_every_refusal_is_a_row_or_in_exactly_one_count(seed: int, most_keys: int) -> None:
    """For any order, times and evictions, the single rows plus the counts equal the refusals, by address."""
    clock, ledger = SteppedClock(0.0), EventLedger(None, "ui_iot")
    flood = make_flood(clock, rows=3, most_keys=most_keys, ledger=ledger)
    chosen = random.Random(seed)
    happened: Counter[tuple[object, object]] = Counter()
    found: Counter[tuple[object, object]] = Counter()

    def settle(*, everything: bool = False) -> None:
        for line, count in flood.take_due(everything=everything):
            row = read_line(line)
            details = orjson.loads(row["details"] or "")
            assert details["count"] == count
            assert datetime.fromisoformat(details["first_at"]) <= datetime.fromisoformat(details["last_at"])
            found[row["ip_address"], details["reason"]] += count
            flood.settle(count)

    for _ in range(400):
        key = (f"10.0.0.{chosen.randrange(12)}", chosen.choice(REASONS))
        happened[key] += 1
        if flood.admits(refusal(*key)):
            found[key] += 1
        assert len(flood) <= most_keys
        clock.now += chosen.choice((0.0, 0.1, 3.0))
        if chosen.random() < 0.1:
            settle()
    settle(everything=True)
    assert found == happened
    assert ledger.accounts["aggregated"].outstanding == 0


async def test_a_flood_is_few_rows_with_the_exact_number(app_url: str, conn: asyncpg.Connection) -> None:
    """Through the whole writer. Refusals in a flood do not wait, and a stop writes the pending counts."""
    async with open_trail(app_url, audit_flood_rows_per_window=20, audit_flood_window_seconds=0.3) as trail:
        for _ in range(1000):
            await trail.logger.record(trail.logger.auth.failure(reason="expired", ip_address="10.1.2.3"))
        for _ in range(100):
            trail.logger.log(
                trail.logger.auth.failure(reason="forbidden", ip_address="10.1.2.3", actor=db.Actor("user", "alice"))
            )
        aggregated = trail.total("events_aggregated_total")
        assert aggregated >= 500
        await until(lambda: _counted(conn, "auth.forbidden"))
        trail.logger.log(trail.logger.auth.success(actor=db.Actor("user", "alice")))
    rows = await conn.fetch(
        "select event_type, count(*) as rows, sum(coalesce((details ->> 'count')::bigint, 1))::int as events,"
        " count(*) filter (where details ? 'aggregated') as aggregates,"
        " bool_and(ip_address = '10.1.2.3') as located from audit_log where event_type <> 'auth.login_success'"
        " group by 1 order by 1"
    )
    assert [(row["event_type"], row["events"], row["located"]) for row in rows] == [
        ("auth.forbidden", 100, True),
        ("auth.login_failure", 1000, True),
    ]
    assert rows[0]["rows"] == 21
    assert rows[1]["rows"] < 500
    named = await conn.fetch("select actor_id, details from audit_log where details ? 'aggregated'")
    assert {row["actor_id"] for row in named} == {None}


async def test_a_flood_while_nothing_can_be_stored_ends_in_a_gap_with_its_number(
    app_url: str, database_url: str, conn: asyncpg.Connection
) -> None:
    """The counts survive although their row cannot be stored."""
    locker = await asyncpg.connect(database_url)
    await locker.execute("begin; lock table audit_log in access exclusive mode")
    async with open_trail(
        app_url,
        audit_flood_rows_per_window=1,
        audit_flood_window_seconds=0.1,
        audit_database_seconds=0.1,
        audit_spool_dir="/dev/null/spool",
        audit_when_blocked="allow",
    ) as trail:
        for _ in range(50):
            trail.logger.log(trail.logger.auth.failure(reason="expired", ip_address="10.1.2.3"))
        await until(lambda: trail.metric("events_dropped_total", "auth_failures") == 1)
        await until(lambda: trail.logger._losses._account.outstanding == 50)  # noqa: SLF001  # both are lost by now
        await locker.close()
        await until(lambda: trail.total("gaps_total") >= 1)
        await until(lambda: trail.logger._losses._account.outstanding == 0)  # noqa: SLF001
    lost = await conn.fetchval("select sum((details ->> 'count')::int) from audit_log where event_type = 'audit.gap'")
    assert lost == 50


async def _counted(conn: asyncpg.Connection, event_type: str) -> bool:
    query = "select exists (select from audit_log where event_type = $1 and details ? 'aggregated')"
    return bool(await conn.fetchval(query, event_type))
