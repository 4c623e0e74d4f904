"""Tenant limits: excess is refused and counted exactly, without effect on other tenants."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import orjson
import pytest

from services.cli.tenant import set_limit
from services.ops_worker.workers.limit_defaults import LimitDefaults
from services.shared.db import Pool
from services.shared.limit_settings import TenantLimitSettings
from tests.support import seed
from tests.support.api_client import Api, open_api
from tests.support.migrator import Migrator
from tests.support.problem import assert_problem
from tests.support.wait import until

RULE = {"name": "hot", "metric": "heat", "operator": ">", "threshold": 80}
USED = """
select limit_name, used from tenant_usage where tenant_id = $1
union all select 'series', sum(added)::bigint from ingest.series_counts where tenant_id = $1
"""
COUNTED = """
select 'devices', count(*) from devices where tenant_id = $1
union all select 'rules', count(*) from alert_rules where tenant_id = $1
union all select 'channels', count(*) from notification_channels where tenant_id = $1
union all select 'series', count(*) from device_state where tenant_id = $1
"""


@pytest.fixture
async def api(app_url: str, conn: asyncpg.Connection) -> AsyncIterator[Api]:
    for tenant_id in ("acme", "umbrella"):
        await seed.device(conn, tenant_id=tenant_id)
    async with open_api(app_url) as opened:
        yield opened


async def counts(conn: asyncpg.Connection, query: str, tenant_id: str = "acme") -> dict[str, int]:
    """Return the nonzero counts by limit."""
    return {name: number for name, number in await conn.fetch(query, tenant_id) if number}


async def reached(conn: asyncpg.Connection) -> list[dict[str, Any]]:
    """Return the audit events about limits."""
    query = "select tenant_id, details from audit_log where event_type = 'system.limit_reached' order by recorded_at"
    return [{"tenant_id": row["tenant_id"], **orjson.loads(row["details"])} for row in await conn.fetch(query)]


def channel(number: int) -> dict[str, Any]:
    """Return a channel as the API takes it."""
    return {"name": f"c{number}", "kind": "webhook", "config": {"url": f"https://hooks.example.com/{number}"}}


async def test_what_is_above_a_limit_is_refused_by_name_and_audited_once(
    api: Api, app_pool: Pool, conn: asyncpg.Connection
) -> None:
    bodies: dict[str, Any] = {
        "devices": lambda number: {"device_id": f"d{number}"},
        "rules": lambda number: {**RULE, "name": f"r{number}"},
        "channels": channel,
    }
    for limit, body in bodies.items():
        used = (await counts(conn, USED)).get(limit, 0)
        assert await set_limit(app_pool, "acme", limit, used + 1)
        made = await api.make(f"/api/v1/{limit}", body(1))
        for number in (2, 3):
            response = await api.call("POST", f"/api/v1/{limit}", json=body(number))
            problem = assert_problem(response, 422)
            assert (problem["reason"], problem["limit"], problem["value"]) == ("limit_reached", limit, used + 1)
            assert f"pulse tenant limit acme {limit} VALUE" in problem["detail"]
        # Another tenant has the default. Removing a row makes room for one.
        await api.make(f"/api/v1/{limit}", body(1), tenant="umbrella")
        identity = made.get(f"{limit[:-1]}_id")
        assert (await api.call("DELETE", f"/api/v1/{limit}/{identity}")).status_code == 204
        await api.make(f"/api/v1/{limit}", body(4))
        assert (await api.call("POST", f"/api/v1/{limit}", json=body(5))).status_code == 422
        assert await set_limit(app_pool, "acme", limit, None)
        await api.make(f"/api/v1/{limit}", body(6))
        assert not await set_limit(app_pool, "acme", limit, None)

    async def all_counted() -> bool:
        total = "select sum(value) from metrics.limit_refusals_total"
        return bool(await conn.fetchval(total) == 9)

    await until(all_counted)
    events = await reached(conn)
    assert sorted((event["tenant_id"], event["limit"]) for event in events) == [
        ("acme", "channels"),
        ("acme", "devices"),
        ("acme", "rules"),
    ]
    assert await counts(conn, USED) == await counts(conn, COUNTED)
    kinds = await conn.fetch("select event_type from audit_log where event_type like 'config.tenant_limit%'")
    assert Counter(row["event_type"] for row in kinds) == {
        "config.tenant_limit_created": 3,
        "config.tenant_limit_deleted": 3,
    }


async def test_requests_at_once_do_not_pass_a_limit_together(
    api: Api, app_pool: Pool, conn: asyncpg.Connection
) -> None:
    await set_limit(app_pool, "acme", "devices", 5)
    await set_limit(app_pool, "acme", "series", 5)
    answers = await asyncio.gather(
        *(api.call("POST", "/api/v1/devices", json={"device_id": f"d{number}"}) for number in range(12))
    )
    assert Counter(answer.status_code for answer in answers) == {201: 4, 422: 8}

    async def send(number: int) -> dict[str, Any]:
        readings = [{"device_id": "boiler-1", "metric": f"m{number}-{place}", "value": 1} for place in range(2)]
        answer = await api.call("POST", "/ingest/v1/readings", json=readings)
        # A request may lose its place twice in a row and must then be sent again.
        while answer.status_code == 503:
            answer = await api.call("POST", "/ingest/v1/readings", json=readings)
        body: dict[str, Any] = answer.json()
        return body

    bodies = await asyncio.gather(*map(send, range(8)))
    assert sum(body["accepted"] for body in bodies) == 5
    refused = [entry for body in bodies for entry in body["refused"]]
    assert len(refused) == 11
    assert {entry["reason"] for entry in refused} == {"series_limit"}
    assert "pulse tenant limit TENANT series VALUE" in refused[0]["detail"]
    assert await counts(conn, USED) == await counts(conn, COUNTED) == {"devices": 5, "series": 5}


async def test_known_series_go_on_above_the_limit_and_cost_nothing_more(
    api: Api, app_pool: Pool, conn: asyncpg.Connection
) -> None:
    readings = [{"device_id": "boiler-1", "metric": f"m{number}", "value": 1} for number in range(3)]
    assert (await api.call("POST", "/ingest/v1/readings", json=readings)).json()["accepted"] == 3
    await set_limit(app_pool, "acme", "series", 3)
    version = "select array_agg(count_id) from ingest.series_counts where tenant_id = 'acme'"
    before = await conn.fetchval(version)
    mixed = [
        {"device_id": "boiler-1", "metric": "new", "value": 1},
        *[{**reading, "value": 2} for reading in readings],
        {"device_id": "boiler-1", "metric": "new", "value": 3},
        {"device_id": "nobody", "metric": "m1", "value": 3},
    ]
    answer = (await api.call("POST", "/ingest/v1/readings", json=mixed)).json()
    assert (answer["accepted"], answer["overwritten"]) == (3, 0)
    assert [(entry["index"], entry["reason"]) for entry in answer["refused"]] == [
        (0, "series_limit"),
        (4, "series_limit"),
        (5, "unknown_device"),
    ]
    assert await conn.fetchval(version) == before
    # Two readings of one series need one place.
    await set_limit(app_pool, "acme", "series", 4)
    answer = (await api.call("POST", "/ingest/v1/readings", json=mixed)).json()
    assert [entry["reason"] for entry in answer["refused"]] == ["unknown_device"]
    assert (await api.call("DELETE", "/api/v1/devices/boiler-1")).status_code == 204
    assert await counts(conn, USED) == await counts(conn, COUNTED) == {}
    await seed.device(conn)
    await conn.execute("truncate devices, device_state")
    assert await counts(conn, USED) == {}


async def test_a_transaction_in_hand_keeps_no_other_series_from_beginning(
    conn: asyncpg.Connection, database_url: str
) -> None:
    await seed.device(conn)
    slow = await asyncpg.connect(database_url)
    try:
        async with slow.transaction():
            await seed.readings(slow, (0, 1), metric="m0")
            for number in range(1, 4):
                await seed.readings(conn, (0, 1), metric=f"m{number}")
    finally:
        await slow.close()
    await seed.readings(conn, (0, 1), metric="m4")
    assert (await counts(conn, USED))["series"] == 5
    assert await conn.fetchval("select count(*) from ingest.series_counts") == 1


async def test_defaults_come_from_the_settings_and_0_is_no_limit(
    api: Api, app_pool: Pool, conn: asyncpg.Connection
) -> None:
    stored = "select limit_name, value from tenant_limits where tenant_id = 'system'"
    settings = TenantLimitSettings().limits()
    defaults = {**settings, "evaluation_weight": 1}  # not a setting, because a weight is relative to other tenants
    assert dict(await conn.fetch(stored)) == defaults
    worker = LimitDefaults({**settings, "devices": 1})
    await worker.store(app_pool)
    await worker.store(app_pool)
    assert dict(await conn.fetch(stored)) == {**defaults, "devices": 1}
    assert (await api.call("POST", "/api/v1/devices", json={"device_id": "d2"})).status_code == 422
    await set_limit(app_pool, "acme", "devices", 0)
    await api.make("/api/v1/devices", {"device_id": "d2"})
    events = "select count(*) from audit_log where event_type = 'config.tenant_limit_updated'"
    assert await conn.fetchval(events) == 1
    for tenant_id, limit, value, words in (
        ("nobody", "devices", 1, "there is no tenant nobody"),
        ("acme", "moons", 1, "there is no limit moons, only alerts_open, channels"),
        ("system", "devices", 1, "PULSE_LIMIT_"),
        ("acme", "evaluation_weight", 0, "evaluation_weight must be from 1 to 100, not 0"),
        ("acme", "evaluation_weight", 101, "evaluation_weight must be from 1 to 100, not 101"),
    ):
        with pytest.raises(asyncpg.PostgresError, match=words):
            await set_limit(app_pool, tenant_id, limit, value)


async def test_rows_from_before_the_revision_count(conn: asyncpg.Connection, database_url: str) -> None:
    for tenant_id in ("acme", "umbrella"):
        await seed.device(conn, tenant_id=tenant_id)
        await seed.rule(conn, tenant_id=tenant_id)
        await seed.channel(conn, tenant_id=tenant_id)
        await seed.readings(conn, (0, 95), tenant_id=tenant_id)
    before = await counts(conn, COUNTED)
    assert before == dict.fromkeys(("devices", "rules", "channels", "series"), 1)
    migrator = Migrator(database_url)
    await asyncio.to_thread(migrator.downgrade, "0009")
    await seed.rule(conn)
    await asyncio.to_thread(migrator.upgrade)
    for tenant_id in ("acme", "umbrella"):
        assert await counts(conn, USED, tenant_id) == await counts(conn, COUNTED, tenant_id)
