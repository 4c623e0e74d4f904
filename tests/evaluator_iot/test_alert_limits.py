"""Limits on open alerts and on transitions: withheld alerts are counted, audited once, and open when room is free."""

import asyncio
from datetime import timedelta
from typing import Any

import asyncpg
import orjson

from services.cli.tenant import set_limit
from services.shared.db import Pool
from tests.support import seed
from tests.support.clock import create_clock, set_clock
from tests.support.evaluation import evaluate, story

DEVICES = [f"d{number}" for number in range(5)]
OPEN = "select count(*) from alerts where tenant_id = $1 and status <> 'closed'"


async def reached(conn: asyncpg.Connection) -> list[dict[str, Any]]:
    """Return the audit events about limits."""
    query = "select tenant_id, details from audit_log where event_type = 'system.limit_reached' order by recorded_at"
    return [{"tenant_id": row["tenant_id"], **orjson.loads(row["details"])} for row in await conn.fetch(query)]


async def refused(conn: asyncpg.Connection, limit: str) -> int:
    """Return the metric's value for a limit."""
    return int(await conn.fetchval("select value from metrics.limit_refusals_total where limit_name = $1", limit))


async def fleet(conn: asyncpg.Connection, *tenants: str) -> None:
    """Five devices and a rule for each tenant, on a stopped clock."""
    await conn.execute(create_clock(seed.NOON))
    for tenant_id in tenants:
        for device_id in DEVICES:
            await seed.device(conn, device_id, tenant_id=tenant_id)
        await seed.rule(conn, tenant_id=tenant_id)


async def test_alerts_above_the_limit_wait_until_there_is_room(conn: asyncpg.Connection, app_pool: Pool) -> None:
    await fleet(conn, "acme", "umbrella")
    await set_limit(app_pool, "acme", "alerts_open", 3)
    for tenant_id in ("acme", "umbrella"):
        await seed.readings(conn, *((-10, 95, device_id) for device_id in DEVICES), tenant_id=tenant_id)
    await evaluate(conn)
    assert [await conn.fetchval(OPEN, tenant_id) for tenant_id in ("acme", "umbrella")] == [3, 5]
    assert await refused(conn, "alerts_open") == 2
    [event] = await reached(conn)
    assert {name: event[name] for name in ("tenant_id", "limit", "value", "refused")} == {
        "tenant_id": "acme",
        "limit": "alerts_open",
        "value": 3,
        "refused": 2,
    }
    waiting = "select device_id from rule_state where tenant_id = 'acme' and not firing order by 1"
    withheld = [row["device_id"] for row in await conn.fetch(waiting)]
    assert len(withheld) == 2

    # A further breach is tried again and counted; one event covers the window.
    await seed.readings(conn, (-9, 96, withheld[0]))
    await evaluate(conn)
    assert (await conn.fetchval(OPEN, "acme"), await refused(conn, "alerts_open")) == (3, 3)
    assert len(await reached(conn)) == 1

    # Room for one: the timer opens it without a further reading, and the other one keeps waiting.
    firing = await conn.fetchval("select device_id from rule_state where tenant_id = 'acme' and firing limit 1")
    await seed.readings(conn, (-8, 20, firing))
    await evaluate(conn)
    assert await conn.fetchval(OPEN, "acme") == 2
    await conn.execute(set_clock(seed.NOON + timedelta(seconds=61)))
    await evaluate(conn)
    assert (await conn.fetchval(OPEN, "acme"), await refused(conn, "alerts_open")) == (3, 4)
    assert len(await conn.fetch(waiting)) == 1

    # The breach ends before there is room: no alert opens and none waits.
    last = await conn.fetchval(waiting)
    await seed.readings(conn, (61, 20, last))
    await evaluate(conn)
    assert await conn.fetch(waiting) == []
    assert await conn.fetchval("select count(*) from alerts where tenant_id = 'acme' and device_id = $1", last) == 0

    # The next window has its own event, with the number of earlier refusals.
    await conn.execute(set_clock(seed.NOON + timedelta(minutes=10)))
    await seed.readings(conn, (600, 97, firing), (600, 97, last))
    await evaluate(conn)
    events = await reached(conn)
    assert [(event["refused"], event["refused_before"]) for event in events] == [(2, 0), (2, 4)]


async def test_transitions_above_the_limit_are_counted_and_go_on_in_the_next_minute(
    conn: asyncpg.Connection, app_pool: Pool
) -> None:
    await fleet(conn, "acme", "umbrella")
    await set_limit(app_pool, "acme", "transitions_per_minute", 6)
    # Each device opens, closes and opens: too few changes for one flapping alert.
    swings = [(-40 + number, 95 if number // 5 % 2 else 20, DEVICES[number % 5]) for number in range(20)]
    for tenant_id in ("acme", "umbrella"):
        await seed.readings(conn, *swings, tenant_id=tenant_id)
    await evaluate(conn)
    count = "select count(*) from alert_events where tenant_id = $1"
    # Ten openings: three alerts with their ends were allowed; the last readings breach and their alerts wait.
    assert [await conn.fetchval(count, tenant_id) for tenant_id in ("acme", "umbrella")] == [6, 15]
    assert await refused(conn, "transitions_per_minute") == 7
    assert [event["limit"] for event in await reached(conn)] == ["transitions_per_minute"]
    assert await conn.fetchval(OPEN, "acme") == 0
    for minute, opened in ((1, 3), (2, 5)):
        await conn.execute(set_clock(seed.NOON + timedelta(minutes=minute, seconds=minute)))
        await evaluate(conn)
        assert await conn.fetchval(OPEN, "acme") == opened
    assert len(await reached(conn)) == 1


async def test_an_alert_that_closes_in_its_pass_takes_no_room(conn: asyncpg.Connection, app_pool: Pool) -> None:
    await fleet(conn, "acme")
    await set_limit(app_pool, "acme", "alerts_open", 1)
    await seed.readings(conn, (-12, 95, "d0"), (-11, 20, "d0"), (-10, 95, "d1"), (-9, 95, "d2"))
    await evaluate(conn)
    rows = await conn.fetch("select device_id, status from alerts order by device_id")
    assert [tuple(row) for row in rows] == [("d0", "closed"), ("d1", "open")]
    assert await refused(conn, "alerts_open") == 1


async def test_openings_of_an_earlier_minute_do_not_count(conn: asyncpg.Connection, app_pool: Pool) -> None:
    """Each pass of a minute counts the openings of that minute's earlier passes and no others."""
    await fleet(conn, "acme")
    await set_limit(app_pool, "acme", "transitions_per_minute", 4)
    for second in (-10, -5, 50, 55):
        await conn.execute(set_clock(seed.NOON + timedelta(seconds=second + 5)))
        await seed.readings(conn, (second, 95, "d0"), (second + 1, 20, "d0"))
        await evaluate(conn)
    assert await refused(conn, "transitions_per_minute") == 0
    assert await conn.fetchval("select count(*) from alerts") == 4


async def test_a_flapping_alert_takes_the_limit_once(conn: asyncpg.Connection, app_pool: Pool) -> None:
    """While withheld it waits like any other alert, and it opens once."""
    await fleet(conn, "acme")
    await set_limit(app_pool, "acme", "transitions_per_minute", 2)
    for device_id in ("d1", "d2"):
        await seed.readings(conn, *((-40 + number, 95 if number % 2 else 20, device_id) for number in range(20)))
    await evaluate(conn)
    assert (await conn.fetchval(OPEN, "acme"), await refused(conn, "transitions_per_minute")) == (1, 1)
    assert [kind for kind, _ in await story(conn)] == ["opened", "flapping"]
    await conn.execute(set_clock(seed.NOON + timedelta(seconds=61)))
    await evaluate(conn)
    assert await conn.fetchval(OPEN, "acme") == 2
    assert [kind for kind, _ in await story(conn)] == ["opened", "flapping", "opened"]


async def test_a_new_rule_opens_no_more_than_the_limit(conn: asyncpg.Connection, app_pool: Pool) -> None:
    await conn.execute(create_clock(seed.NOON))
    for device_id in DEVICES:
        await seed.device(conn, device_id)
    await seed.readings(conn, *((-10, 95, device_id) for device_id in DEVICES))
    await evaluate(conn)
    await set_limit(app_pool, "acme", "alerts_open", 2)
    async with conn.transaction():
        await conn.execute("select set_config('pulse.tenant_id', 'acme', true)")
        await conn.execute(
            "select evaluator.create_rule($1::text::jsonb)",
            orjson.dumps({"name": "hot", "metric": "temperature", "operator": ">", "threshold": 80}).decode(),
        )
    assert await conn.fetchval(OPEN, "acme") == 2
    assert await conn.fetchval("select count(*) from rule_state where not firing") == 3
    await set_limit(app_pool, "acme", "alerts_open", None)
    await conn.execute(set_clock(seed.NOON + timedelta(seconds=61)))
    await evaluate(conn)
    assert await conn.fetchval(OPEN, "acme") == 5
    assert [kind for kind, _ in await story(conn)] == ["opened"] * 5


async def test_two_evaluators_at_once_audit_once_and_exceed_by_one_pass_at_most(
    conn: asyncpg.Connection, app_pool: Pool
) -> None:
    tenants = [f"t{number}" for number in range(6)]
    for tenant_id in tenants:
        await seed.tenant(conn, tenant_id)
    await conn.execute(
        "insert into devices (tenant_id, device_id, name)"
        " select t, 'd' || n, 'd' from unnest($1::text[]) t, generate_series(1, 64) n",
        tenants,
    )
    for tenant_id in tenants:
        await seed.rule(conn, tenant_id=tenant_id)
        await set_limit(app_pool, tenant_id, "alerts_open", 10)
        await seed.readings(conn, *((0, 95, f"d{number}") for number in range(1, 65)), tenant_id=tenant_id)
    passes = "select readings from evaluator.evaluate(64)"

    async def drain() -> None:
        idle = 0
        while idle < 3:
            idle = 0 if await app_pool.fetchval(passes) else idle + 1

    await asyncio.gather(drain(), drain())
    assert await conn.fetchval("select count(*) from evaluator.inbox") == 0
    found = [await conn.fetchval(OPEN, tenant_id) for tenant_id in tenants]
    assert min(found) >= 10
    assert max(found) <= 10 + 64
    assert sum(found) + await refused(conn, "alerts_open") == 64 * len(tenants)
    assert sorted(event["tenant_id"] for event in await reached(conn)) == tenants
