"""Detection of attacks on accounts in the audit trail: each once, without false findings."""

import asyncio
import itertools
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

import asyncpg
import pytest

from services.shared import db
from tests.support.benign_day import OFFICE, Login, account, at, make_day, store

NOON = at(12)
OUTSIDE = "185.220.101.4"


def tries(
    user: str | None,
    count: int,
    *,
    address: str | None = OUTSIDE,
    start: datetime = NOON,
    seconds: float = 1.0,
    reason: str = "invalid_token",
) -> list[Login]:
    """Return failed logins at even intervals in seconds, the first at start."""
    return [
        Login(when=start + timedelta(seconds=seconds * number), address=address, user=user, reason=reason)
        for number in range(count)
    ]


def stuffing(accounts: int = 10, each: int = 3, *, start: datetime = NOON) -> list[Login]:
    """Return logins of one address that tries many accounts."""
    return [login for number in range(accounts) for login in tries(f"victim-{number}", each, start=start)]


def spraying(accounts: int = 20, each: int = 1, *, start: datetime = NOON) -> list[Login]:
    """Return logins that try many accounts, each from a different address."""
    return [
        login
        for number in range(accounts)
        for login in tries(f"victim-{number}", each, address=f"45.9.1.{number}", start=start)
    ]


def takeover(failures: int = 10, *, start: datetime = NOON, address: str | None = OUTSIDE) -> list[Login]:
    """Return failures and then a success."""
    end = start + timedelta(seconds=failures)
    return [*tries("victim", failures, start=start), Login(when=end, address=address, user="victim")]


async def detect(conn: asyncpg.Connection, when: datetime) -> list[tuple[str, str]]:
    """Return the kind and subject of each finding that is new at a moment."""
    return [(row["kind"], row["subject"]) for row in await conn.fetch("select * from audit._detect_attacks($1)", when)]


async def replay(
    conn: asyncpg.Connection, logins: Iterable[Login], *, until: datetime, number: int = 10**6
) -> list[tuple[str, str]]:
    """Store the logins and run the detector once, at the end."""
    await store(conn, logins, first_number=number)
    return await detect(conn, until)


def soon(minutes: float = 5) -> datetime:
    """Return a moment after noon."""
    return NOON + timedelta(minutes=minutes)


@pytest.mark.parametrize(
    ("logins", "found"),
    [
        (tries("victim", 30), [("brute_force", account("victim"))]),
        (tries("victim", 29), []),
        (tries("victim", 30, reason="unknown_key"), [("brute_force", account("victim"))]),
        (stuffing(10, 3), [("credential_stuffing", OUTSIDE)]),
        (stuffing(9, 3), []),
        (stuffing(10, 2), []),
        (spraying(20, 1), [("password_spraying", "all")]),
        (spraying(20, 3), [("password_spraying", "all")]),
        (spraying(19, 1), []),
        (spraying(20, 4), []),
        (takeover(10), [("success_after_failures", account("victim"))]),
        (takeover(9), []),
    ],
)
async def test_the_thresholds_are_exact(
    conn: asyncpg.Connection, logins: list[Login], found: list[tuple[str, str]]
) -> None:
    """One try or account less, or one try too many per account, is no finding."""
    assert await replay(conn, logins, until=soon()) == found


@pytest.mark.parametrize(("minutes", "found"), [(14.9, 1), (15, 0)])
async def test_a_window_ends(conn: asyncpg.Connection, minutes: float, found: int) -> None:
    """If the first of thirty failures was 15 minutes ago, the window has 29."""
    await conn.execute("update audit.attack_detector set checked_at = $1", soon(120))
    assert len(await replay(conn, tries("victim", 30, seconds=0.1), until=soon(minutes))) == found


@pytest.mark.parametrize("reason", ["expired", "invalid_claims", "missing_token", "rate_limited", "auth_unavailable"])
async def test_a_refusal_without_guessing_is_no_attack(conn: asyncpg.Connection, reason: str) -> None:
    """A valid signature or a missing token is not a guess, however often it occurs."""
    logins = [login for number in range(50) for login in tries(f"user-{number}", 40, reason=reason, seconds=0.1)]
    assert await replay(conn, logins, until=soon()) == []


async def test_tokens_without_an_account_are_no_attack_on_one(conn: asyncpg.Connection) -> None:
    """A thousand broken gateways may share one address."""
    assert await replay(conn, tries(None, 1000, seconds=0.1), until=soon()) == []


async def test_an_aggregated_row_counts_in_full(conn: asyncpg.Connection) -> None:
    """A row that aggregates 25 tries counts as 25. An invalid count counts as one."""
    flood = Login(when=soon(1), address=OUTSIDE, user="victim", reason="invalid_token", count=25)
    assert await replay(conn, [*tries("victim", 4), flood], until=soon()) == []
    assert await replay(conn, tries("victim", 1, start=soon(2)), until=soon(), number=7) == [
        ("brute_force", account("victim"))
    ]
    weights = await conn.fetchrow(
        """select audit._occurrences('{"aggregated": true, "count": "many"}'), audit._occurrences('{"count": 9}'),
                  audit._occurrences('{"aggregated": true, "count": 1e300}'),
                  audit._occurrences('{"aggregated": true}'),
                  audit._occurrences('{"aggregated": true, "count": -4}')"""
    )
    assert tuple(weights) == (1, 1, 10**12, 1, 1)


async def test_one_customers_ipv6_is_one_address(conn: asyncpg.Connection) -> None:
    """Thirty addresses of one /64 count as one. Nine of different customers do not."""
    same = [
        login
        for number in range(10)
        for host in range(3)
        for login in tries(f"victim-{number}", 1, address=f"2001:db8:1:2:{number}::{host + 1}")
    ]
    apart = [login for number in range(9) for login in tries(f"other-{number}", 3, address=f"2001:db8:2:{number}::1")]
    found = await replay(conn, [*same, *apart], until=soon())
    assert found == [("credential_stuffing", "2001:db8:1:2::/64")]


async def test_failures_of_known_members_are_no_attack(conn: asyncpg.Connection) -> None:
    """Failures of an office's known members are no attack. Failures on unknown accounts from there are one."""
    members = [Login(when=at(11.5), address=OFFICE, user=f"member-{number}") for number in range(30)]
    fails = [login for number in range(30) for login in tries(f"member-{number}", 3, address=OFFICE)]
    assert await replay(conn, [*members, *fails], until=soon()) == []
    strangers = [login for number in range(10) for login in tries(f"stranger-{number}", 3, address=OFFICE)]
    assert await replay(conn, strangers, until=soon(), number=5000) == [("credential_stuffing", OFFICE)]


async def test_a_success_does_not_hide_the_spray(conn: asyncpg.Connection) -> None:
    """The account that was guessed still counts as tried."""
    logins = [*spraying(20, 1), Login(when=soon(1), address="45.9.1.3", user="victim-3")]
    assert await replay(conn, logins, until=soon()) == [("password_spraying", "all")]


async def test_the_owner_works_on_during_an_attack(conn: asyncpg.Connection) -> None:
    """A success from an address that was in use before the attack is not reported. One from another address is."""
    owner = [Login(when=at(11.5 + number / 10), address=OFFICE, user="victim") for number in range(10)]
    assert await replay(conn, [*owner, *tries("victim", 20)], until=soon(30)) == []
    thief = Login(when=soon(31), address="45.9.1.1", user="victim")
    assert await replay(conn, [thief], until=soon(32), number=5000) == [("success_after_failures", account("victim"))]


async def test_the_owners_own_failure_does_not_make_it_a_takeover(conn: asyncpg.Connection) -> None:
    """One failure from the owner's usual address is no takeover. Ten from there are."""
    owner = [Login(when=at(11.5 + number / 10), address=OFFICE, user="victim") for number in range(10)]
    failed = tries("victim", 1, address=OFFICE, start=soon(20))
    assert await replay(conn, [*owner, *failed, *tries("victim", 20)], until=soon(30)) == []
    more = tries("victim", 9, address=OFFICE, start=soon(21))
    back = Login(when=soon(23), address=OFFICE, user="victim")
    assert await replay(conn, [*more, back], until=soon(32), number=5000) == [
        ("success_after_failures", account("victim"))
    ]


async def test_several_attacks_at_once_are_several_findings(conn: asyncpg.Connection) -> None:
    """Each kind has its own subject, and accounts of one never count for another."""
    logins = [*tries("root", 40), *takeover(12), *spraying(25, 2), *stuffing(12, 4)]
    found = await replay(conn, logins, until=soon())
    # victim-0 to victim-11 were tried six times in all: the thirteen others are no spray.
    assert sorted(found) == [
        ("brute_force", account("root")),
        ("credential_stuffing", OUTSIDE),
        ("success_after_failures", account("victim")),
    ]


async def test_a_finding_is_an_event_and_an_alert(conn: asyncpg.Connection) -> None:
    """The event and the alert contain numbers and no names."""
    assert await replay(conn, [*tries("victim", 29), *tries("victim", 3, address="45.9.1.1")], until=soon()) != []
    finding = await conn.fetchrow("select * from audit.attacks")
    assert (finding["failures"], finding["accounts"], finding["addresses"]) == (32, 1, 2)
    assert (finding["first_at"], finding["last_at"]) == (NOON, NOON + timedelta(seconds=28))
    alert = await conn.fetchrow("select * from alerts")
    assert (alert["tenant_id"], alert["severity"], alert["status"]) == ("system", "critical", "open")
    assert alert["fingerprint"] == f"attack:brute_force:{account('victim')}"
    assert alert["alert_id"] == finding["alert_id"]
    event = await conn.fetchrow("select * from audit_log where event_type = 'auth.attack_suspected'")
    assert (event["tenant_id"], event["severity"], event["entity_id"]) == (
        "system",
        "critical",
        str(finding["finding_id"]),
    )
    assert "victim" not in event["message"] + event["details"] + alert["message"]
    assert f'"subject": "{account("victim")}"' in event["details"]


async def test_an_ongoing_attack_is_one_finding(conn: asyncpg.Connection) -> None:
    """Later passes update the finding silently. It closes with its alert when the attack is over."""
    await store(conn, tries("victim", 3600, seconds=2))
    found = [await detect(conn, soon(minutes)) for minutes in range(121)]
    assert list(itertools.chain(*found)) == [("brute_force", account("victim"))]
    finding = await conn.fetchrow("select * from audit.attacks")
    assert (finding["failures"], finding["first_at"], finding["closed_at"]) == (450, NOON, None)
    assert finding["last_at"] == soon(120) - timedelta(seconds=2)
    assert await conn.fetchval("select count(*) from alerts where status = 'open'") == 1
    quiet = finding["last_at"] + timedelta(minutes=30)
    assert await detect(conn, quiet - timedelta(seconds=1)) == []
    assert await conn.fetchval("select count(*) from alerts where status = 'open'") == 1
    assert await detect(conn, quiet) == []
    assert await conn.fetchval("select closed_at from audit.attacks") == quiet
    assert [tuple(row) for row in await conn.fetch("select status, close_reason from alerts")] == [
        ("closed", "resolved")
    ]
    assert await conn.fetchval("select count(*) from audit_log where event_type = 'auth.attack_suspected'") == 1


async def test_after_quiet_it_is_a_new_attack(conn: asyncpg.Connection) -> None:
    """The same account an hour later gets a second finding and a new alert."""
    assert len(await replay(conn, tries("victim", 30), until=soon(1))) == 1
    assert await detect(conn, soon(40)) == []
    again = tries("victim", 30, start=soon(60))
    assert len(await replay(conn, again, until=soon(61), number=5000)) == 1
    rows = await conn.fetch("select finding_id, closed_at is null as is_open from audit.attacks order by 1")
    assert [row["is_open"] for row in rows] == [False, True]
    assert [row[0] for row in await conn.fetch("select status from alerts order by alert_id")] == ["closed", "open"]


async def test_rows_that_come_late_are_judged_by_when_they_happened(conn: asyncpg.Connection) -> None:
    """Events arrive from a spool an hour late. The attack is found once, and distant failures stay distant."""
    assert await detect(conn, soon(60)) == []
    arrived = soon(60.05)
    slow = [login for number in range(40) for login in tries(f"slow-{number}", 40, seconds=90, start=at(11))]
    late = [
        Login(when=login.when, address=login.address, user=login.user, reason=login.reason, recorded=arrived)
        for login in [*tries("victim", 30), *slow[:40]]
    ]
    await store(conn, late)
    assert await detect(conn, soon(60.1)) == [("brute_force", account("victim"))]
    assert await detect(conn, soon(60.2)) == []
    # It stays open as long as an attack found in time, so that an operator sees it.
    assert await detect(conn, soon(85)) == []
    assert await conn.fetchval("select count(*) from alerts where status = 'open'") == 1
    assert await detect(conn, soon(91)) == []
    assert await conn.fetchval("select count(*) from alerts where status = 'open'") == 0
    # Another late row of the finished attack does not reopen it.
    straggler = Login(when=soon(1), address=OUTSIDE, user="victim", reason="invalid_token", recorded=soon(100))
    assert await replay(conn, [straggler], until=soon(100.1), number=5000) == []
    assert await conn.fetchval("select count(*) from audit.attacks") == 1


async def test_an_attack_during_an_outage_is_found(conn: asyncpg.Connection) -> None:
    """The detector was stopped for three hours."""
    assert await detect(conn, NOON) == []
    assert await replay(conn, takeover(12, start=soon(30)), until=soon(180)) == [
        ("success_after_failures", account("victim"))
    ]


async def test_a_storm_of_findings_is_no_storm_of_alerts(conn: asyncpg.Connection) -> None:
    """Fifty accounts under attack give fifty findings and events, and twenty alerts."""
    logins = [login for number in range(50) for login in tries(f"user-{number}", 30, address=f"45.9.1.{number}")]
    assert len(await replay(conn, logins, until=soon())) == 50
    assert await conn.fetchval("select count(*) from alerts") == 20
    assert await conn.fetchval("select count(*) from audit_log where event_type = 'auth.attack_suspected'") == 50


async def test_two_copies_at_once_find_it_once(conn: asyncpg.Connection, ops_pool: db.Pool) -> None:
    """Four copies run repeatedly as the ops worker's role: one finding, one event, one alert."""
    now = await conn.fetchval("select now()")
    await store(conn, tries("victim", 40, start=now - timedelta(minutes=5)))
    passes = await asyncio.gather(
        *(ops_pool.fetch("select * from audit.detect_attacks()") for _ in range(40)),
    )
    assert sum(len(rows) for rows in passes) == 1
    counts = await conn.fetchrow(
        "select (select count(*) from audit.attacks), (select count(*) from alerts),"
        " (select count(*) from audit_log where event_type = 'auth.attack_suspected')"
    )
    assert tuple(counts) == (1, 1, 1)


async def test_a_failing_pass_leaves_nothing(conn: asyncpg.Connection) -> None:
    """Finding, event and alert commit together, so the next pass finds the attack again."""
    await store(conn, tries("victim", 30))
    async with conn.transaction():
        await conn.execute("alter function audit._close_attacks rename to gone")
        with pytest.raises(asyncpg.UndefinedFunctionError):
            async with conn.transaction():
                await detect(conn, soon())
        await conn.execute("alter function audit.gone rename to _close_attacks")
    assert await conn.fetchval("select count(*) from audit_log where event_type = 'auth.attack_suspected'") == 0
    assert len(await detect(conn, soon())) == 1


async def test_views_show_what_goes_on_now(conn: asyncpg.Connection, role_url: Any) -> None:
    """An auditor sees each kind and its thresholds without waiting for the detector."""
    now = await conn.fetchval("select now()")
    await store(
        conn, [*takeover(30, start=now - timedelta(minutes=3)), *stuffing(20, 3, start=now - timedelta(minutes=2))]
    )
    auditor = await asyncpg.connect(role_url("pulse_auditor"))
    try:
        for kind, subject in (
            ("brute_force", account("victim")),
            ("credential_stuffing", OUTSIDE),
            ("password_spraying", "all"),
            ("success_after_failures", account("victim")),
        ):
            rows = await auditor.fetch(f"select * from audit.{kind}")
            assert [(row["kind"], row["subject"]) for row in rows] == [(kind, subject)]
        kinds = {row[0] for row in await auditor.fetch("select kind from audit.attack_thresholds")}
        assert len(kinds) == 4
    finally:
        await auditor.close()


ATTACKS = {
    ("brute_force", account("office-7")): tries("office-7", 40, start=at(10.3)),
    ("credential_stuffing", OUTSIDE): stuffing(12, 4, start=at(9.6)),
    # This is during the minutes in which all sessions fail.
    ("password_spraying", "all"): spraying(25, 2, start=at(11.01)),
    ("success_after_failures", account("victim")): takeover(15, start=at(3)),
}


@pytest.mark.slow
@pytest.mark.parametrize("attacks", [{}, ATTACKS], ids=["benign", "attacked"])
async def test_a_day_shows_its_attacks_and_nothing_else(
    conn: asyncpg.Connection, attacks: dict[tuple[str, str], list[Login]]
) -> None:
    """A day of 300 people, a broken gateway and health checks is replayed in steps of three minutes."""
    day = sorted([*make_day(), *itertools.chain(*attacks.values())], key=lambda login: login.when)
    assert len(day) > 10_000
    await conn.execute("select ops.ensure_partitions()")
    found: list[tuple[str, str]] = []
    number = 1
    for look, events in itertools.groupby(day, key=lambda login: int((login.when - at(0)).total_seconds() // 180)):
        arrived = list(events)
        await store(conn, arrived, first_number=number)
        number += len(arrived)
        found += await detect(conn, at(0, seconds=180 * (look + 1)))
    assert sorted(found) == sorted(attacks)
    assert await conn.fetchval("select count(*) from audit.attacks where closed_at is null") == 0
