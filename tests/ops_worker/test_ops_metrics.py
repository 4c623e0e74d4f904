"""Samples of the services' counters: one series for any number of collecting copies."""

import asyncio

import asyncpg
import httpx
import orjson

from services.ops_worker.metrics_collector import MetricsCollector
from services.ops_worker.service_status import read_report
from services.shared.db import Pool
from tests.support.health_target import HealthTarget


def collector(client: httpx.AsyncClient, target: HealthTarget, round_seconds: float = 0.0) -> MetricsCollector:
    """Return a collector of one service whose rounds count regardless of their interval."""
    return MetricsCollector(client=client, urls={"dispatcher": target.url}, round_seconds=round_seconds, concurrency=4)


async def series(conn: asyncpg.Connection, name: str = "rows") -> list[float]:
    """Return the values of a counter of the service, oldest first."""
    query = "select value from service_metrics where service = 'dispatcher' and name = $1 order by recorded_at"
    return [row["value"] for row in await conn.fetch(query, name)]


async def test_counters_are_stored_as_read(conn: asyncpg.Connection, app_pool: Pool, client: httpx.AsyncClient) -> None:
    """A restart, which shows as a falling counter, and an unhealthy service's counters are stored unchanged."""
    async with HealthTarget() as target:
        collect = collector(client, target).collect
        for rows in (5, 8, 1):
            target.report(counters={"rows": rows, "errors": 0})
            assert await collect(app_pool) == 0
        target.report(status="degraded", counters={"rows": 2})
        await collect(app_pool)

    assert await series(conn, "rows") == [5, 8, 1, 2]
    assert await series(conn, "errors") == [0, 0, 0]
    assert await conn.fetchval("select count(distinct recorded_at) from service_metrics") == 4


async def test_a_service_that_does_not_answer_stores_nothing(
    conn: asyncpg.Connection, app_pool: Pool, client: httpx.AsyncClient
) -> None:
    """A gap in the series is a gap, not a zero."""
    target = HealthTarget()
    async with target:
        await collector(client, target).collect(app_pool)
    await collector(client, target).collect(app_pool)
    async with target:
        await collector(client, target).collect(app_pool)

    assert await series(conn) == [7, 7]


async def test_copies_store_one_series(conn: asyncpg.Connection, app_pool: Pool, client: httpx.AsyncClient) -> None:
    """One of four copies stores its samples of a minute, run in parallel or in sequence."""
    async with HealthTarget() as target:
        copies = [collector(client, target, round_seconds=60) for _ in range(4)]
        await asyncio.gather(*(copy.collect(app_pool) for copy in copies))
        await copies[0].collect(app_pool)
        assert await series(conn) == [7]
        await conn.execute("update service_metrics set recorded_at = recorded_at - interval '60 seconds'")
        await asyncio.gather(*(copy.collect(app_pool) for copy in copies))
        assert await series(conn) == [7, 7]


def test_only_finite_numbers_with_plain_names_are_counters() -> None:
    """Other values in a service's report are ignored, as are counters above the limit."""
    wanted = {"rows": 3.0, "seconds": 0.5, "below": -1.0}
    odd = {"on": True, "name": "x", "none": None, "list": [1], "Bad Name": 1, "": 1, "a" * 64: 1, "nul\0": 1}
    report = orjson.dumps({"status": "ok", "counters": wanted | odd})
    assert read_report(200, report) == (None, wanted)
    assert read_report(200, b'{"status": "ok", "counters": {"huge": 1e999}}')[1] == {}
    assert read_report(200, b'{"status": "ok", "counters": [1]}') == (None, {})
    many = {f"counter_{number}": number for number in range(500)}
    assert len(read_report(200, orjson.dumps({"status": "ok", "counters": many}))[1]) == 100


async def test_every_start_of_a_process_counts(conn: asyncpg.Connection, app_pool: Pool) -> None:
    """Simultaneous starts count as well, and the count survives the trail's retention."""
    starts = (
        app_pool.execute("select audit.record_process('dispatcher', $1, 'started')", f"host:{pid}") for pid in range(29)
    )
    await asyncio.gather(*starts)
    await app_pool.execute("select audit.record_process('dispatcher', 'host:1', 'stopped')")
    await conn.execute("set session_replication_role = replica; delete from audit_log; reset session_replication_role")
    for view, value in (("process_starts_total", 29), ("process_stops_total", 1)):
        rows = await app_pool.fetch(f"select service, value from metrics.{view}")
        found = {row["service"]: row["value"] for row in rows}
        assert found == dict.fromkeys(("ui_iot", "evaluator_iot", "delivery_worker", "ops_worker"), 0) | {
            "dispatcher": value
        }
    assert await conn.fetchval("select started_at <= stopped_at from ops.process_starts")
