"""Repeated reads: the first is durable before its answer, the others share one row with the exact count."""

import asyncio
from typing import Any

import asyncpg
import orjson
import pytest

from services.shared.audit import AuditEvent
from services.shared.audit_writer.aggregation import MOST_MEMBERS, Reads
from services.shared.audit_writer.ledger import EventLedger, read_remains
from services.shared.audit_writer.line import read_line
from tests.support import seed
from tests.support.api_client import open_api
from tests.support.stepped_clock import SteppedClock
from tests.support.wait import until

ROWS = """
select actor_id, tenant_id, trace_id, details from audit_log
where event_type = $1 and actor_id = any ($2) order by timestamp
"""


def read(actor: str = "alice", path: str = "/a", address: str = "10.0.0.1", tenant: str = "acme") -> AuditEvent:
    """Return a request of a person that was let in."""
    details = {"method": "GET", "path": path, "role": "viewer", "span_id": "b7ad6b7169203331"}
    return AuditEvent(
        event_type="auth.login_success",
        message="caller let in",
        tenant_id=tenant,
        actor_type="user",
        actor_id=actor,
        ip_address=address,
        details=details,
    )


def make_reads(clock: SteppedClock, ledger: EventLedger | None = None, *, most_keys: int = 10_000) -> Reads:
    """Windows of a minute."""
    return Reads(
        rows=1,
        seconds=60.0,
        service="ui_iot",
        account=(ledger or EventLedger(None, "ui_iot")).accounts["reads"],
        on_due=lambda: None,
        clock=clock,
        most_keys=most_keys,
    )


def details(rows: list[Any]) -> list[dict[str, Any]]:
    """Details of the rows that are due."""
    return [orjson.loads(read_line(line)["details"] or "") for line, _ in rows]


def test_repeats_share_a_row_and_callers_kinds_and_addresses_do_not() -> None:
    clock = SteppedClock(0.0)
    reads = make_reads(clock)
    assert all(
        reads.admits(event, kind)
        for event, kind in (
            (read(), "list_alerts"),
            (read(), "get_alert"),
            (read("bob"), "list_alerts"),
            (read(tenant="umbrella"), "list_alerts"),
            (read(address="10.0.0.2"), "list_alerts"),
        )
    )
    paths = [f"/a/{number}" for number in range(500)]
    assert not any(reads.admits(read(path=path), "get_alert") for path in [*paths, *["/a/often"] * 30])
    assert not reads.admits(read("bob"), "list_alerts")
    assert reads.take_due() == []
    clock.now = 60.0
    due = reads.take_due()
    assert sorted(count for _, count in due) == [1, 530]
    [many] = [found for found in details(due) if found["count"] == 530]
    assert sum(entry["count"] for entry in many["reads"]) == 530
    assert len(many["reads"]) <= MOST_MEMBERS + 2
    assert {"read": "/a/often", "count": 30} in many["reads"]
    assert "span_id" not in many
    assert many["first_at"] <= many["last_at"]
    assert reads.admits(read(), "get_alert")


def test_memory_is_bounded_and_no_count_is_lost() -> None:
    reads = make_reads(SteppedClock(0.0), most_keys=10)
    for number in range(1000):
        reads.admits(read(f"a{number % 50}"), "k")
        reads.admits(read(f"a{number % 50}"), "k")
    assert len(reads) <= 11
    assert sum(count for _, count in reads.take_due(everything=True)) + 1000 == 2000


def test_a_crash_leaves_the_number_of_reads_without_a_row(tmp_path: Any) -> None:
    ledger = EventLedger(tmp_path, "ui_iot")
    reads = make_reads(SteppedClock(0.0), ledger)
    for _ in range(8):
        reads.admits(read(), "k")
    # Nothing is closed, so the file looks like that of a killed process.
    remains = read_remains(tmp_path)
    assert remains is not None
    assert remains.counts == {"reads": 7}
    reads.settle(sum(count for _, count in reads.take_due(everything=True)))
    assert read_remains(tmp_path) is None


@pytest.mark.parametrize("stops", [False, True])
async def test_polling_leaves_two_rows_a_window_over_http(app_url: str, conn: asyncpg.Connection, stops: bool) -> None:
    for tenant_id in ("acme", "umbrella"):
        await seed.device(conn, tenant_id=tenant_id)
    seconds = 3600.0 if stops else 0.5
    async with open_api(app_url, audit_read_window_seconds=seconds) as api:
        for _ in range(2):
            polls = [
                api.call("GET", f"/api/v1/alerts?limit={limit}", role="viewer", tenant=tenant)
                for limit in range(1, 16)
                for tenant in ("acme", "umbrella")
            ]
            looks = [api.call("GET", f"/api/v1/audit/events?limit={n}", role="auditor") for n in (1, 2, 2)]
            assert {answer.status_code for answer in await asyncio.gather(*polls, *looks)} == {200}
        viewers = ["viewer@acme", "viewer@umbrella"]
        # A change is never aggregated.
        for number in range(3):
            await api.make("/api/v1/devices", {"device_id": f"d{number}"})

        async def count(event_type: str, actors: list[str]) -> int:
            found = [orjson.loads(row["details"]) for row in await conn.fetch(ROWS, event_type, actors)]
            return sum(entry.get("count", 1) for entry in found)

        if not stops:
            await until(lambda: _is_sum(count, viewers))
    assert await count("auth.login_success", viewers) == 60
    assert await count("audit.read", ["auditor@acme"]) == 6
    rows = await conn.fetch(ROWS, "auth.login_success", viewers)
    assert {row["actor_id"].partition("@")[2] == row["tenant_id"] for row in rows} == {True}
    if stops:
        assert len(rows) == 4
        [_, shared] = [orjson.loads(row["details"]) for row in await conn.fetch(ROWS, "audit.read", ["auditor@acme"])]
        assert (shared["aggregated"], shared["count"]) == (True, 5)
        assert {entry["read"].count("limit") for entry in shared["reads"]} == {1}
    assert len(await conn.fetch(ROWS, "auth.login_success", ["admin@acme"])) == 3
    assert await conn.fetchval("select count(*) from audit_log where event_type = 'audit.gap'") == 0


async def _is_sum(count: Any, viewers: list[str]) -> bool:
    return bool(await count("auth.login_success", viewers) == 60)


async def test_requests_that_no_route_takes_share_a_row(app_url: str, conn: asyncpg.Connection) -> None:
    """They change nothing, so a viewer or a device must not fill the trail with them."""
    await seed.device(conn)
    async with open_api(app_url, audit_read_window_seconds=3600.0) as api:
        calls = [api.call("POST", f"/api/v1/nowhere/{number}", role="viewer", json={}) for number in range(20)]
        calls += [api.call(method, "/api/v1/alerts", role="viewer") for method in ("DELETE", "PUT", "M1", "M2")]
        assert {answer.status_code for answer in await asyncio.gather(*calls)} == {404, 405}
    rows = [orjson.loads(row["details"]) for row in await conn.fetch(ROWS, "auth.login_success", ["viewer@acme"])]
    assert sorted(row.get("count", 1) for row in rows) == [1, 23]
