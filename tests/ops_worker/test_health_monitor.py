"""The health monitor opens one system alert for a failing service and closes it after recovery."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any

import asyncpg
import httpx
import pytest

from services.ops_worker.health_monitor import HealthMonitor
from services.ops_worker.service_status import read_report
from services.shared.db import Pool
from tests.support.health_target import HealthTarget
from tests.support.wait import until


@pytest.fixture
async def target() -> AsyncIterator[HealthTarget]:
    """A healthy service."""
    async with HealthTarget() as service:
        yield service


def monitor(client: httpx.AsyncClient, urls: Mapping[str, str], round_seconds: float = 0.0) -> HealthMonitor:
    """Return a monitor that alerts at the third failure. Its rounds count regardless of their interval."""
    return HealthMonitor(client=client, urls=urls, failures_to_alert=3, round_seconds=round_seconds, concurrency=4)


async def health(conn: asyncpg.Connection, service: str = "dispatcher") -> dict[str, Any]:
    """Return the stored row of the service."""
    return dict(await conn.fetchrow("select * from service_health where service = $1", service))


async def story(conn: asyncpg.Connection) -> list[str]:
    """Return the kinds of the alert events, in order."""
    return [row["kind"] for row in await conn.fetch("select kind from alert_events order by event_id")]


async def test_a_healthy_service_is_recorded(
    conn: asyncpg.Connection, app_pool: Pool, client: httpx.AsyncClient, target: HealthTarget
) -> None:
    """One round stores address, state and latency, without an alert."""
    assert await monitor(client, {"dispatcher": target.url}).check(app_pool) == 0

    row = await health(conn)
    assert (row["tenant_id"], row["status"], row["failures"], row["error"]) == ("system", "up", 0, None)
    assert (row["url"], row["latency_ms"] > 0) == (target.url, True)
    assert await story(conn) == []


async def test_an_outage_opens_one_alert_and_its_end_closes_it(
    conn: asyncpg.Connection, app_pool: Pool, client: httpx.AsyncClient, target: HealthTarget
) -> None:
    """The third consecutive failure opens the alert, and the first success closes it. Then it starts again."""
    watch = monitor(client, {"dispatcher": target.url})
    await watch.check(app_pool)

    await target.down()
    for failures, events in [(1, 0), (2, 0), (3, 1), (4, 1)]:
        await watch.check(app_pool)
        row = await health(conn)
        assert (row["status"], row["failures"], len(await story(conn))) == ("down", failures, events)
    alert = await conn.fetchrow("select * from alerts")
    assert (alert["tenant_id"], alert["fingerprint"], alert["severity"]) == ("system", "health:dispatcher", "critical")
    assert alert["message"].startswith("dispatcher failed 3 health checks in a row: ConnectError")

    await target.up()
    await watch.check(app_pool)
    assert await story(conn) == ["opened", "closed"]
    assert await conn.fetchval("select close_reason from alerts") == "resolved"
    row = await health(conn)
    assert (row["status"], row["failures"], row["error"]) == ("up", 0, None)

    await target.down()
    for _ in range(3):
        await watch.check(app_pool)
    assert await story(conn) == ["opened", "closed", "opened"]


async def test_the_outage_is_audited_and_traced(
    conn: asyncpg.Connection, app_pool: Pool, client: httpx.AsyncClient, target: HealthTarget
) -> None:
    """The round's trace is in its requests, the alert and the audit events."""
    other = HealthTarget()
    async with other:
        watch = monitor(client, {"dispatcher": target.url, "exporter": other.url})
        await target.down()
        for _ in range(3):
            await watch.check(app_pool)
        await target.up()
        await watch.check(app_pool)

    traces = [request["x-trace-id"] for request in other.requests]
    assert len(set(traces)) == 4  # a fresh one each round
    assert other.requests[2]["traceparent"].split("-")[1] == traces[2]
    assert await conn.fetchval("select trace_id from alerts") == traces[2]
    audited = await conn.fetch(
        "select event_type, trace_id, source_service, entity_id from audit_log"
        " where tenant_id = 'system' order by timestamp"
    )
    types = [row["event_type"] for row in audited]
    assert types == ["alert.opened", "system.service_down", "alert.closed", "system.service_up"]
    assert [row["trace_id"] for row in audited] == [traces[2], traces[2], traces[3], traces[3]]
    assert {row["source_service"] for row in audited} == {"ops_worker"}
    assert audited[1]["entity_id"] == audited[3]["entity_id"] == "dispatcher"


async def test_a_flapping_service_opens_nothing(
    conn: asyncpg.Connection, app_pool: Pool, client: httpx.AsyncClient, target: HealthTarget
) -> None:
    """A service that fails two of three checks never fails three in a row."""
    watch = monitor(client, {"dispatcher": target.url})
    for number in range(12):
        target.status = 200 if number % 3 == 0 else 503
        await watch.check(app_pool)

    assert await story(conn) == []


async def test_copies_at_once_count_as_one(
    conn: asyncpg.Connection, app_pool: Pool, client: httpx.AsyncClient, target: HealthTarget
) -> None:
    """Four copies in the same round count as one check. After four rounds one alert is open."""
    await target.down()
    copies = [monitor(client, {"dispatcher": target.url}, round_seconds=60) for _ in range(4)]

    for failures in (1, 2, 3, 4):
        await asyncio.gather(*(copy.check(app_pool) for copy in copies))
        assert (await health(conn))["failures"] == failures
        await conn.execute("update service_health set checked_at = checked_at - interval '60 seconds'")
    assert await story(conn) == ["opened"]


async def test_copies_that_race_open_one_alert(
    conn: asyncpg.Connection, app_pool: Pool, client: httpx.AsyncClient, target: HealthTarget
) -> None:
    """Ten copies check all failed services in opposite orders: one alert each, no error."""
    await target.down()
    urls = {f"worker-{number}": target.url for number in range(6)}
    backwards = dict(reversed(urls.items()))

    for _ in range(4):
        rounds = [monitor(client, urls if number % 2 else backwards).check(app_pool) for number in range(10)]
        assert await asyncio.gather(*rounds) == [0] * 10
    assert await conn.fetchval("select count(*) from alerts") == 6
    assert await story(conn) == ["opened"] * 6


async def test_a_service_that_hangs_delays_no_other(
    conn: asyncpg.Connection, app_pool: Pool, client: httpx.AsyncClient, target: HealthTarget
) -> None:
    """Ten services that never answer cost one timeout, and the healthy one is still up."""
    stuck = HealthTarget()
    stuck.hangs = True
    async with stuck:
        urls = {f"stuck-{number}": stuck.url for number in range(10)} | {"dispatcher": target.url}
        watch = HealthMonitor(client=client, urls=urls, failures_to_alert=3, round_seconds=0, concurrency=11)
        started = time.monotonic()
        await watch.check(app_pool)
        assert 0.9 < time.monotonic() - started < 5  # ten consecutive timeouts would take ten seconds

    assert (await health(conn))["status"] == "up"
    assert (await health(conn, "stuck-3"))["error"] == "TimeoutException: no answer within 1 s"


async def test_no_more_are_asked_at_once_than_allowed(
    app_pool: Pool, client: httpx.AsyncClient, target: HealthTarget
) -> None:
    target.may_answer.clear()
    urls = {f"worker-{number}": target.url for number in range(6)}
    watch = HealthMonitor(client=client, urls=urls, failures_to_alert=3, round_seconds=0, concurrency=2)
    checking = asyncio.create_task(watch.check(app_pool))
    await until(lambda: len(target.requests) >= 2)
    target.may_answer.set()
    await checking

    assert (len(target.requests), target.at_once) == (6, 2)


async def test_a_closed_alert_opens_again_while_the_service_is_down(
    conn: asyncpg.Connection, app_pool: Pool, client: httpx.AsyncClient, target: HealthTarget
) -> None:
    """Closing the alert manually does not repair the service."""
    await target.down()
    watch = monitor(client, {"dispatcher": target.url})
    for _ in range(3):
        await watch.check(app_pool)
    await conn.execute("select evaluator.close_alerts('system', array_agg(alert_id), 'mine', 'ann', null) from alerts")

    await watch.check(app_pool)
    assert await story(conn) == ["opened", "closed", "opened"]


async def test_a_service_that_says_it_is_not_well_has_failed(
    conn: asyncpg.Connection, app_pool: Pool, client: httpx.AsyncClient, target: HealthTarget
) -> None:
    """The report must have status ok. Its text is stored, with any bytes."""
    watch = monitor(client, {"dispatcher": target.url})
    target.report(status="degraded", reason="database: \0 TimeoutError")
    await watch.check(app_pool)

    row = await health(conn)
    assert (row["status"], row["failures"]) == ("down", 1)
    assert row["error"] == "degraded: database: \N{REPLACEMENT CHARACTER} TimeoutError"


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (200, b'{"status": "ok"}', None),
        (200, b'{"status": "degraded", "reason": "stopping"}', "degraded: stopping"),
        (200, b'{"status": "degraded", "reason": null}', "degraded: no reason given"),
        (503, b'{"status": "ok"}', "answered 503"),
        (404, b"not found", "answered 404"),
        (302, b"", "answered 302"),
        (200, b"", "the answer is no health report"),
        (200, b"<html>hello</html>", "the answer is no health report"),
        (200, b"[]", "the answer is no health report"),
        (200, b'{"status": 1}', "the answer is no health report"),
        (200, b'{"status": "ok"', "the answer is no health report"),
        (200, b"\xff\xfe", "the answer is no health report"),
    ],
)
def test_what_counts_as_healthy(status: int, body: bytes, error: str | None) -> None:
    assert read_report(status, body)[0] == error


async def test_a_service_removed_from_the_settings_is_forgotten(
    conn: asyncpg.Connection, app_pool: Pool, client: httpx.AsyncClient, target: HealthTarget
) -> None:
    """A removed target leaves neither a row nor an open alert."""
    await target.down()
    watch = monitor(client, {"dispatcher": target.url})
    for _ in range(3):
        await watch.check(app_pool)

    assert await conn.fetch("select * from ops.prune(365, 1)") == []
    await conn.execute("update service_health set checked_at = checked_at - interval '25 hours'")
    removed = await conn.fetch("select what, removed from ops.prune(365, 1)")
    assert [tuple(row) for row in removed] == [("service_health", 1)]
    assert await conn.fetchval("select close_reason from alerts") == "no longer monitored"
