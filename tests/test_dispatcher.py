"""Alert events become jobs exactly once, in order, for the right channels, and every silence has its reason."""

import asyncio
from typing import Any

import asyncpg
import pytest

from services.shared.db import Pool
from tests import seed
from tests.test_evaluator import evaluate


async def dispatch(conn: asyncpg.Connection, limit: int = 1000) -> int:
    """Run passes until one is idle; the alert events they decided."""
    total = 0
    while events := await conn.fetchval("select events from dispatcher.dispatch($1)", limit):
        total += events
    return total


async def jobs(conn: asyncpg.Connection) -> list[tuple[Any, ...]]:
    """Kind and channel of every job, in order."""
    return [tuple(row) for row in await conn.fetch("select kind, channel_id from notification_jobs order by job_id")]


async def reasons(conn: asyncpg.Connection) -> list[tuple[Any, ...]]:
    """Reason and channel of every suppression, in order."""
    rows = await conn.fetch("select reason, channel_id from suppressions order by suppression_id")
    return [tuple(row) for row in rows]


async def breach(
    conn: asyncpg.Connection,
    *,
    at: int = 0,
    device_id: str = "boiler-1",
    trace_id: str | None = None,
) -> None:
    """One reading that opens the rule's alert."""
    await seed.readings(conn, (at, 90, device_id), trace_id=trace_id)
    await evaluate(conn)


async def test_open_and_close_become_jobs_in_order(conn: asyncpg.Connection) -> None:
    """A blip within one batch is told twice: first its beginning, then its end, both under the reading's trace."""
    await seed.device(conn)
    await seed.rule(conn)
    channel_id = await seed.channel(conn)
    await seed.route(conn, channel_id)
    await seed.readings(conn, (0, 90), (1, 20), trace_id="d" * 32)
    await evaluate(conn)

    assert await dispatch(conn) == 2

    assert await jobs(conn) == [("opened", channel_id), ("closed", channel_id)]
    assert await conn.fetchval("select count(*) from notification_jobs where trace_id = $1", "d" * 32) == 2
    payloads = await conn.fetch("select payload #>> '{alert,status}' as status from notification_jobs order by job_id")
    assert [row["status"] for row in payloads] == ["open", "closed"]
    audited = await conn.fetch("select event_type from audit_log where category = 'delivery' order by timestamp")
    assert [row["event_type"] for row in audited] == [
        "delivery.queued",
        "delivery.queued",
    ]


async def test_routes_by_severity_rule_and_tag(conn: asyncpg.Connection) -> None:
    """Every condition of a route must hold; a channel reached by two routes is told once."""
    await seed.device(conn, tags=("oven",))
    rule_id = await seed.rule(conn, severity="warning")
    other_rule = await seed.rule(conn, name="unused", metric="pressure")
    names = ("low", "high", "rule", "other rule", "tag", "other tag", "off", "twice")
    channel = {name: await seed.channel(conn, name) for name in names}
    await seed.route(conn, channel["low"], min_severity="warning")
    await seed.route(conn, channel["high"], min_severity="error")
    await seed.route(conn, channel["rule"], rule_id=rule_id)
    await seed.route(conn, channel["other rule"], rule_id=other_rule)
    await seed.route(conn, channel["tag"], tag="oven")
    await seed.route(conn, channel["other tag"], tag="fridge")
    await seed.route(conn, channel["off"], enabled=False)
    await seed.route(conn, channel["twice"])
    await seed.route(conn, channel["twice"], tag="oven")
    await breach(conn)

    await dispatch(conn)

    told = {channel_id for _, channel_id in await jobs(conn)}
    assert told == {channel["low"], channel["rule"], channel["tag"], channel["twice"]}
    assert await conn.fetchval("select count(*) from notification_jobs") == 4


async def test_every_silence_has_its_reason(conn: asyncpg.Connection) -> None:
    """No route, a disabled channel and a silenced alert each leave a suppression that says so."""
    await seed.device(conn)
    await seed.rule(conn)
    await breach(conn)
    await dispatch(conn)
    assert await reasons(conn) == [("no_route", None)]

    await seed.readings(conn, (1, 20))
    await evaluate(conn)
    await dispatch(conn)
    assert await reasons(conn) == [("no_route", None), ("not_notified", None)]

    off = await seed.channel(conn, "off", enabled=False)
    on = await seed.channel(conn, "on")
    await seed.route(conn, off)
    await seed.route(conn, on)
    await breach(conn, at=2)
    await conn.execute("update alerts set silenced_until = now() + interval '1 hour' where status = 'open'")
    await dispatch(conn)
    assert (await reasons(conn))[2:] == [("silenced", off), ("silenced", on)]

    await seed.readings(conn, (3, 20))
    await evaluate(conn)
    await breach(conn, at=4)
    await dispatch(conn)
    assert (await reasons(conn))[4:] == [("not_notified", None), ("channel_disabled", off)]
    assert await jobs(conn) == [("opened", on)]
    suppressed = await conn.fetchval("select count(*) from audit_log where event_type = 'delivery.suppressed'")
    assert suppressed == len(await reasons(conn))


async def test_the_end_goes_to_whoever_was_told_of_the_beginning(
    conn: asyncpg.Connection,
) -> None:
    """Routes changed while an alert is open neither hide its end from some nor show it to others."""
    await seed.device(conn)
    await seed.rule(conn)
    told, late = await seed.channel(conn, "told"), await seed.channel(conn, "late")
    await seed.route(conn, told)
    await breach(conn)
    await dispatch(conn)
    await conn.execute("delete from notification_routes")
    await seed.route(conn, late)
    # A silence keeps nobody from hearing that it is over.
    await conn.execute("update alerts set silenced_until = now() + interval '1 hour'")
    await seed.readings(conn, (1, 20))
    await evaluate(conn)

    await dispatch(conn)

    assert await jobs(conn) == [("opened", told), ("closed", told)]


async def test_jobs_follow_the_order_of_events_over_alerts(conn: asyncpg.Connection) -> None:
    """In one batch, the end of one alert comes before the beginning of the next for the same device."""
    await seed.device(conn)
    await seed.rule(conn)
    channel_id = await seed.channel(conn)
    await seed.route(conn, channel_id)
    await seed.readings(conn, (0, 90), (1, 20), (2, 90), (3, 20), (4, 90))
    await evaluate(conn)
    await dispatch(conn)
    assert [kind for kind, _ in await jobs(conn)] == ["opened", "closed", "opened", "closed", "opened"]


async def test_an_escalation_goes_to_its_channel(conn: asyncpg.Connection) -> None:
    """An escalated event needs no route; a channel that is gone is a recorded reason."""
    await seed.device(conn)
    await seed.rule(conn)
    boss = await seed.channel(conn, "boss")
    await breach(conn)
    await conn.execute(
        "insert into alert_events (tenant_id, alert_id, kind, occurred_at, channel_id, step_number)"
        " select tenant_id, alert_id, 'escalated', now(), c, 1 from alerts, unnest($1::bigint[]) c",
        [boss, boss + 999],
    )
    await dispatch(conn)
    assert await jobs(conn) == [("escalated", boss)]
    assert ("channel_deleted", boss + 999) in await reasons(conn)


async def test_other_tenants_channels_are_never_told(conn: asyncpg.Connection) -> None:
    """A route leads only to alerts of its own tenant."""
    await seed.device(conn)
    await seed.rule(conn)
    theirs = await seed.channel(conn, tenant_id="other")
    await seed.route(conn, theirs, tenant_id="other")
    await breach(conn)
    await dispatch(conn)
    assert await jobs(conn) == []


@pytest.mark.parametrize("limit", [1, 3, 1000])
async def test_two_dispatchers_do_the_work_of_one(conn: asyncpg.Connection, app_pool: Pool, limit: int) -> None:
    """Several dispatchers at once make each job once, beginnings before ends for every alert."""
    devices = [f"d{number}" for number in range(10)]
    for device_id in devices:
        await seed.device(conn, device_id)
    await seed.rule(conn)
    for name in ("a", "b"):
        await seed.route(conn, await seed.channel(conn, name))
    await seed.readings(
        conn,
        *[(at, 90 if at % 2 else 20, device_id) for at in range(7) for device_id in devices],
    )
    await evaluate(conn)
    events = await conn.fetchval("select count(*) from alert_events")

    async def work() -> int:
        total = 0
        while True:
            done = await app_pool.fetchval("select events from dispatcher.dispatch($1)", limit)
            total += int(done)
            if done == 0 and await is_drained():
                return total

    lock = asyncio.Lock()

    async def is_drained() -> bool:
        async with lock:
            return bool(await conn.fetchval("select count(*) = 0 from alert_events where dispatched_at is null"))

    decided = sum(await asyncio.gather(*(work() for _ in range(4))))

    assert decided == events == 60
    assert await conn.fetchval("select count(*) from notification_jobs") == 120
    disordered = await conn.fetchval(
        "select count(*) from notification_jobs a join notification_jobs b using (tenant_id, alert_id, channel_id)"
        " where a.kind = 'opened' and b.kind = 'closed' and a.job_id > b.job_id"
    )
    assert disordered == 0
