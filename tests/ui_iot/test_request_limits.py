"""Limits on requests and trace lookups over HTTP, with two principals and two tenants."""

import asyncio
import re
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import orjson
import pytest

from services.shared import tracing
from services.shared.db import Pool
from services.shared.metrics import ProcessMetrics
from services.shared.server import Process
from services.shared.settings import UiSettings
from services.ui_iot.limits.limit_refusals import LimitRefusals
from services.ui_iot.limits.request_buckets import WINDOW_SECONDS, Buckets, wait_seconds
from services.ui_iot.limits.turns import MOST_OF_TENANT
from tests.support import seed
from tests.support.api_client import EC, ISSUER, RSA, open_api, token
from tests.support.processes import ready_service
from tests.support.wait import until

REACHED = "select tenant_id, details from audit_log where event_type = 'system.limit_reached' order by tenant_id"


def bearer(sub: str, tenant: str) -> dict[str, str]:
    """Headers of a viewer."""
    return {"Authorization": f"Bearer {token(sub=sub, role='viewer', tenant_id=tenant)}"}


@pytest.mark.slow
async def test_a_caller_above_a_limit_gets_429_and_hurts_no_other(
    app_url: str, conn: asyncpg.Connection, tmp_path: Path
) -> None:
    for tenant_id in ("acme", "umbrella"):
        await seed.device(conn, tenant_id=tenant_id)
    keys = tmp_path / "jwks.json"
    keys.write_bytes(orjson.dumps({"keys": [EC.public(), RSA.public()]}))
    settings = {
        "jwks_file": str(keys),
        "jwt_issuer": ISSUER,
        "requests_per_principal": "5",
        "requests_per_tenant": "8",
        "audit_read_rows_per_window": "0",
    }
    async with ready_service("services.ui_iot", app_url, **settings) as running:
        async with httpx.AsyncClient(base_url=running.url, trust_env=False) as client:

            async def ask(sub: str, tenant: str, number: int) -> list[httpx.Response]:
                headers = bearer(sub, tenant)
                return [await client.get("/api/v1/devices", headers=headers) for _ in range(number)]

            alice = await ask("alice", "acme", 12)
            assert [answer.status_code for answer in alice] == [200] * 5 + [429] * 7
            assert alice[0].headers["ratelimit-policy"] == '"principal";q=5;w=60, "tenant";q=8;w=60'
            assert [re.sub(r"t=\d+", "t=", answer.headers["ratelimit"]) for answer in alice[:6]] == [
                f'"principal";r={own};t=, "tenant";r={own + 3};t=' for own in (4, 3, 2, 1, 0)
            ] + ['"principal";r=0;t=, "tenant";r=2;t=']
            problem: dict[str, Any] = alice[-1].json()
            assert alice[-1].headers["content-type"] == "application/problem+json"
            assert {name: problem[name] for name in ("status", "reason", "limit", "value", "setting")} == {
                "status": 429,
                "reason": "limit_reached",
                "limit": "requests",
                "value": 5,
                "setting": "PULSE_REQUESTS_PER_PRINCIPAL",
            }
            assert problem["trace_id"] == alice[-1].headers["x-trace-id"]
            assert 1 <= int(alice[-1].headers["retry-after"]) <= 12
            # A refused request consumes nothing of the tenant's limit, so another user can use the rest.
            bob = await ask("bob", "acme", 5)
            assert [answer.status_code for answer in bob] == [200] * 3 + [429] * 2
            assert bob[-1].json()["setting"] == "PULSE_REQUESTS_PER_TENANT"
            assert [answer.status_code for answer in await ask("alice", "umbrella", 6)] == [200] * 5 + [429]
            assert (await client.post("/api/v1/rules", headers=bearer("bob", "acme"), json={})).status_code == 429
            assert {(await client.get("/livez")).status_code for _ in range(20)} == {200}
        assert await running.stop() == 0
    events = [(row["tenant_id"], orjson.loads(row["details"])["limit"]) for row in await conn.fetch(REACHED)]
    assert events == [("acme", "requests"), ("umbrella", "requests")]
    refused = "select value from metrics.limit_refusals_total where limit_name = 'requests'"
    assert await conn.fetchval(refused) == 11
    let_in = "select count(*) from audit_log where event_type = 'auth.login_success'"
    assert await conn.fetchval(let_in) == 13


def test_a_bucket_fills_evenly_and_memory_is_bounded() -> None:
    buckets: Buckets[str] = Buckets(60, most_keys=100)
    now = 1000.0
    taken = 0
    for _ in range(100):
        full_at = buckets.full_at("a", now)
        if full_at - now <= WINDOW_SECONDS:
            buckets.take("a", full_at)
            taken += 1
    assert taken == 60
    ahead = buckets.full_at("a", now) - now
    assert (buckets.remaining(ahead), wait_seconds(ahead)) == (0, 1)
    assert buckets.full_at("a", now + 1.0) - (now + 1.0) <= WINDOW_SECONDS
    assert buckets.full_at("a", now + 500.0) == now + 501.0
    for number in range(10_000):
        buckets.take(str(number), buckets.full_at(str(number), now))
        buckets.take("b", buckets.full_at("b", now))
    assert len(buckets) <= 200
    # A key in use is never evicted, for any number of other keys.
    assert buckets.full_at("b", now) - now > WINDOW_SECONDS
    off: Buckets[str] = Buckets(0)
    off.take("a", off.full_at("a", now))
    assert (off.full_at("a", now), len(off)) == (now, 0)


async def test_a_huge_trace_is_cut_short_and_its_tenant_has_one_turn(app_url: str, conn: asyncpg.Connection) -> None:
    with tracing.use_trace_id(None) as context:
        huge = context.trace_id
    for tenant_id in ("acme", "umbrella"):
        await seed.device(conn, tenant_id=tenant_id)
    await conn.execute(
        "insert into telemetry (tenant_id, timestamp, device_id, metric, value, reading_id, received_at, trace_id)"
        " select 'acme', now() - n * interval '1 ms', 'boiler-1', 'heat', n, n, now(), $1"
        " from generate_series(1, 60000) n",
        huge,
    )
    await conn.execute(
        "insert into alerts (tenant_id, fingerprint, rule_name, severity, message, opened_at, trace_id)"
        " select 'acme', 'f' || n, 'r', 'info', 'm', now(), $1 from generate_series(1, 5000) n",
        huge,
    )
    await conn.execute("analyze telemetry, alerts")
    async with open_api(app_url) as api:
        path = f"/api/v1/traces/{huge}"
        # While another transaction locks the table, the lookups of one tenant share one connection.
        async with conn.transaction():
            await conn.execute("lock table alerts")
            asked = [asyncio.create_task(api.call("GET", path)) for _ in range(MOST_OF_TENANT + 3)]
            await until(lambda: sum(task.done() for task in asked) == 3)
            answers = [task.result() for task in asked if task.done()]
            waiting = "select count(distinct pid) from pg_locks where not granted and database is not null"
            assert await conn.fetchval(waiting) <= 1
        for answer in answers:
            assert (answer.status_code, answer.json()["limit"]) == (429, "trace_lookups")
            assert answer.headers["retry-after"] == "2"
        other = await api.call("GET", path, tenant="umbrella")
        assert other.status_code == 404
        found = [await task for task in asked if task not in answers]
        assert {answer.status_code for answer in found} <= {200, 422, 429}
        body = (await api.call("GET", path)).json()
        assert body["truncated"] is True
        readings = [step["details"] for step in body["steps"] if step["kind"] == "reading"]
        assert [(step["readings"], step["truncated"]) for step in readings] == [(40_000, True)]
        assert len(body["steps"]) == 1000


async def test_refusals_during_a_failed_store_are_added(
    conn: asyncpg.Connection, database_url: str, app_pool: Pool
) -> None:
    """The connection is lost while counts are being stored, and more refusals come meanwhile."""
    await seed.tenant(conn)
    process = Process(UiSettings(database_url="postgresql://unused"), ProcessMetrics("ui_iot"), app_pool)
    refusals = LimitRefusals(process)
    locked = await asyncpg.connect(database_url)
    await locked.execute("begin; lock table ops.limit_refusals")
    refusals.count("acme", "requests", 100, refused=2)
    waiting = "select pid from pg_stat_activity where wait_event_type = 'Lock' and query like '%record_refusals%'"
    pid = await until(lambda: conn.fetchval(waiting))
    refusals.count("acme", "requests", 100, refused=3)
    await conn.execute("select pg_terminate_backend($1)", pid)
    await until(lambda: conn.fetchval(f"select not exists ({waiting} and pid = $1)", pid))
    await locked.close()
    await refusals.stop()
    stored = "select value from metrics.limit_refusals_total where limit_name = 'requests'"
    assert await conn.fetchval(stored) == 5
