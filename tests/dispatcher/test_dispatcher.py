"""Alert events become jobs exactly once, in order, for the right channels, and each suppression has a reason."""

import asyncio
import contextlib
from typing import Any

import asyncpg
import orjson
import pytest

from services.shared.db import Pool
from tests.support import seed
from tests.support.decisions import act, dispatch
from tests.support.delivery_pauses import listening
from tests.support.escalation_policy import policy
from tests.support.evaluation import evaluate


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
    """Store one reading that opens the rule's alert."""
    await seed.readings(conn, (at, 90, device_id), trace_id=trace_id)
    await evaluate(conn)


async def test_open_and_close_become_jobs_in_order(conn: asyncpg.Connection) -> None:
    """A blip within one batch causes two notifications, opened before closed, both under the reading's trace."""
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
    """Every condition of a route must hold; a channel that two routes reach is notified once."""
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

    notified = {channel_id for _, channel_id in await jobs(conn)}
    assert notified == {channel["low"], channel["rule"], channel["tag"], channel["twice"]}
    assert await conn.fetchval("select count(*) from notification_jobs") == 4


async def test_an_end_of_a_disabled_channel_can_be_redriven(conn: asyncpg.Connection) -> None:
    """The channel got the opening: once enabled it can get the end, and a redriven opening includes it."""
    await seed.device(conn)
    await seed.rule(conn)
    channel = await seed.channel(conn)
    await seed.route(conn, channel)
    await breach(conn)
    await dispatch(conn)
    await conn.execute("update notification_channels set enabled = false")
    await conn.execute("select * from delivery.claim('w1', 10, 30)")
    await seed.readings(conn, (1, 20))
    await evaluate(conn)
    await dispatch(conn)
    await conn.execute("select * from delivery.claim('w1', 10, 30)")
    assert await reasons(conn) == []
    dead = await conn.fetch("select job_id, kind, dead_reason from notification_jobs order by job_id")
    assert [(row["kind"], row["dead_reason"]) for row in dead] == [
        ("opened", "channel_disabled"),
        ("closed", "channel_disabled"),
    ]
    await conn.execute("update notification_channels set enabled = true")
    async with conn.transaction():
        await conn.execute("select set_config('pulse.tenant_id', 'acme', true)")
        await conn.execute("select delivery.redrive($1)", dead[0]["job_id"])
    waiting = await conn.fetch("select kind from notification_jobs where state = 'pending' order by job_id")
    assert [row["kind"] for row in waiting] == ["opened", "closed"]


async def test_every_silence_has_its_reason(conn: asyncpg.Connection) -> None:
    """A missing route, a disabled channel and a silenced alert each leave a suppression with that reason."""
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
    assert (await reasons(conn))[4:] == [("not_notified", off), ("not_notified", on), ("channel_disabled", off)]
    assert await jobs(conn) == [("opened", on)]
    # One audit event for all channels that an alert event is not sent to.
    suppressed = await conn.fetch("select details from audit_log where event_type = 'delivery.suppressed'")
    skipped = [orjson.loads(row["details"]) for row in suppressed]
    listed = [(entry["reason"], entry.get("channel_id")) for details in skipped for entry in details["channels"]]
    assert sorted(listed, key=str) == sorted(await reasons(conn), key=str)
    assert len(skipped) == 5


async def test_a_route_that_did_not_match_says_why(conn: asyncpg.Connection) -> None:
    """With several routes to a channel, the reason is that of the nearest: the route whose last condition failed."""
    await seed.device(conn, tags=("oven",))
    rule_id = await seed.rule(conn, severity="warning")
    other_rule = await seed.rule(conn, name="unused", metric="pressure")
    expected: dict[int, tuple[str, int]] = {}
    conditions: dict[str, dict[str, Any]] = {
        "below_severity": {"min_severity": "error", "rule_id": rule_id},
        "other_tag": {"tag": "fridge", "min_severity": "critical"},
        "other_rule": {"rule_id": other_rule, "tag": "fridge"},
        "route_disabled": {"enabled": False},
    }
    for reason, columns in conditions.items():
        channel = await seed.channel(conn, reason)
        expected[channel] = (reason, await seed.route(conn, channel, **columns))
    mixed = await seed.channel(conn, "mixed")
    for columns in (conditions["route_disabled"], conditions["other_rule"], conditions["below_severity"]):
        expected[mixed] = ("below_severity", await seed.route(conn, mixed, **columns))
    matching = await seed.channel(conn, "matching")
    await seed.route(conn, matching, **conditions["below_severity"])
    matched = await seed.route(conn, matching, tag="oven")
    await policy(conn, (5, "only escalation"))
    await breach(conn)

    await dispatch(conn)

    rows = await conn.fetch("select channel_id, reason, route_id from suppressions where route_id is not null")
    assert {row["channel_id"]: (row["reason"], row["route_id"]) for row in rows} == expected
    escalation = (
        "select s.reason from suppressions s join notification_channels using (channel_id) where name like 'only %'"
    )
    assert await conn.fetchval(escalation) == "no_route"
    assert await conn.fetchval("select route_id from notification_jobs where channel_id = $1", matching) == matched


async def silence(conn: asyncpg.Connection, minutes: int | None, *, of: str = "max") -> None:
    """Silence the newest alert, or the oldest."""
    alert_id = await conn.fetchval(f"select {of}(alert_id) from alerts")
    await act(conn, "select evaluator.silence_alert($1, now() + $2 * interval '1 minute')", alert_id, minutes)


async def test_a_silence_outlives_its_alert(conn: asyncpg.Connection) -> None:
    """The same rule and device open silenced again, even twice in a pass; another device does not."""
    await seed.device(conn)
    await seed.device(conn, "boiler-2")
    await seed.rule(conn)
    channel = await seed.channel(conn)
    await seed.route(conn, channel)
    await breach(conn)
    await silence(conn, 60)
    await dispatch(conn)
    await seed.readings(conn, (1, 20), (2, 90), (3, 20), (4, 90))
    await evaluate(conn)
    await breach(conn, at=4, device_id="boiler-2")
    await act(conn, "select evaluator.acknowledge_alert(max(alert_id)) from alerts where device_id = 'boiler-1'")
    await dispatch(conn)
    assert [
        tuple(row) for row in await conn.fetch("select kind, payload #>> '{alert,device_id}' from notification_jobs")
    ] == [("opened", "boiler-2")]
    reasons_of_events = await conn.fetch(
        "select e.kind, s.reason from suppressions s join alert_events e using (event_id)"
    )
    assert [(row["kind"], row["reason"]) for row in reasons_of_events if row["kind"] == "opened"] == [
        ("opened", "silenced")
    ] * 3
    silences = "select bool_and(silenced_until > now()) from alerts where device_id = 'boiler-1'"
    assert await conn.fetchval(silences)

    # Lifted by the alert that began it, which has closed since: open and later alerts are notified.
    await silence(conn, None, of="min")
    assert (
        await conn.fetchval(
            "select count(*) from alerts where device_id = 'boiler-1' and status <> 'closed' and silenced_until is null"
        )
        == 1
    )
    await seed.readings(conn, (5, 20), (6, 90))
    await evaluate(conn)
    await dispatch(conn)
    assert (await jobs(conn))[1:] == [("opened", channel)]
    await conn.execute("update evaluator.silences set silenced_until = now() - interval '1 second'")
    assert await conn.fetchval("select count(*) from evaluator.silences") == 0


async def test_a_silence_ends_for_the_next_alert_too(conn: asyncpg.Connection) -> None:
    """The silence follows the clock, for any openings and closings meanwhile."""
    await seed.device(conn)
    await seed.rule(conn)
    channel = await seed.channel(conn)
    await seed.route(conn, channel)
    await breach(conn)
    await silence(conn, 60)
    await conn.execute("update evaluator.silences set silenced_until = now() - interval '1 second'")
    await seed.readings(conn, (1, 20), (2, 90))
    await evaluate(conn)
    await dispatch(conn)
    assert ("opened", channel) in await jobs(conn)


@pytest.mark.parametrize("silenced", [True, False])
async def test_an_acknowledgement_of_a_silenced_alert_is_not_sent(conn: asyncpg.Connection, *, silenced: bool) -> None:
    """The channel was notified of the opening before the silence, and still gets the end."""
    await seed.device(conn)
    await seed.rule(conn)
    channel = await seed.channel(conn)
    await seed.route(conn, channel)
    await breach(conn)
    await dispatch(conn)
    if silenced:
        await silence(conn, 60)
    await act(conn, "select evaluator.acknowledge_alert(alert_id) from alerts")
    await seed.readings(conn, (1, 20))
    await evaluate(conn)
    await dispatch(conn)
    kinds = [kind for kind, _ in await jobs(conn)]
    assert kinds == (["opened", "closed"] if silenced else ["opened", "acknowledged", "closed"])
    expected = [("not_announced", channel), ("silenced", channel)] if silenced else []
    assert await reasons(conn) == expected


async def test_a_notified_channel_keeps_its_decisions_without_a_route(conn: asyncpg.Connection) -> None:
    """A later event of the alert has a row for the channel of its opening, although no route leads there now."""
    await seed.device(conn)
    await seed.rule(conn)
    channel = await seed.channel(conn)
    await seed.route(conn, channel)
    await breach(conn)
    await dispatch(conn)
    await conn.execute("delete from notification_routes")
    await silence(conn, 60)
    await dispatch(conn)
    assert await reasons(conn) == [("not_announced", channel)]


async def test_the_incident_key_is_that_of_the_installation(conn: asyncpg.Connection) -> None:
    """Two installations differ; an alert that predates the id keeps the key of its incident."""
    await seed.device(conn)
    await seed.device(conn, "boiler-2")
    await seed.rule(conn)
    await seed.route(conn, await seed.channel(conn))
    await breach(conn)
    await breach(conn, device_id="boiler-2")
    await conn.execute(
        "update alerts set recorded_at = (select created_at - interval '1 second' from installation)"
        " where device_id = 'boiler-2'"
    )
    await dispatch(conn)
    await seed.readings(conn, (1, 20), (1, 20, "boiler-2"))
    await evaluate(conn)
    await dispatch(conn)
    installation = await conn.fetchval("select core.installation_id()")
    rows = await conn.fetch(
        "select payload #>> '{alert,device_id}' as device, payload->>'dedup_key' as key, alert_id, kind"
        " from notification_jobs order by job_id"
    )
    assert len(rows) == 4
    for row in rows:
        middle = f"{installation}/" if row["device"] == "boiler-1" else ""
        assert row["key"] == f"pulse/{middle}acme/{row['alert_id']}"


async def test_the_end_goes_to_the_channels_of_the_beginning(
    conn: asyncpg.Connection,
) -> None:
    """Changed routes neither hide an open alert's end from its channels nor send it to others."""
    await seed.device(conn)
    await seed.rule(conn)
    first, late = await seed.channel(conn, "told"), await seed.channel(conn, "late")
    await seed.route(conn, first)
    await breach(conn)
    await dispatch(conn)
    await conn.execute("delete from notification_routes")
    await seed.route(conn, late)
    # A silence does not suppress the notification that the alert is over.
    await conn.execute("update alerts set silenced_until = now() + interval '1 hour'")
    await seed.readings(conn, (1, 20))
    await evaluate(conn)

    await dispatch(conn)

    assert await jobs(conn) == [("opened", first), ("closed", first)]


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
    """An escalated event needs no route; a missing channel is a recorded reason."""
    await seed.device(conn)
    await seed.rule(conn)
    boss, desk = await seed.channel(conn, "boss"), await seed.channel(conn, "desk")
    await seed.route(conn, desk)
    await breach(conn)
    await conn.execute(
        "insert into alert_events (tenant_id, alert_id, kind, occurred_at, channel_id, step_number)"
        " select tenant_id, alert_id, 'escalated', now(), c, 1 from alerts, unnest($1::bigint[]) c",
        [boss, boss + 999],
    )
    await dispatch(conn)
    assert await jobs(conn) == [("opened", desk), ("escalated", boss)]
    assert ("channel_deleted", boss + 999) in await reasons(conn)
    assert ("other_step", desk) in await reasons(conn)


async def test_other_tenants_channels_are_never_notified(conn: asyncpg.Connection) -> None:
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
    """Several concurrent dispatchers make each job once, in order for every alert."""
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


async def test_a_second_dispatcher_decides_nothing_meanwhile(conn: asyncpg.Connection, database_url: str) -> None:
    """The events are left to the pass that has the lock, so that job ids follow event ids."""
    await seed.device(conn)
    await seed.rule(conn)
    await seed.route(conn, await seed.channel(conn))
    await breach(conn)
    first = await asyncpg.connect(database_url)
    async with first.transaction():
        assert await first.fetchval("select ops._take_lock('dispatch')")
        # On a machine so slow that the lock is old by now, the pass fails with the name of its holder.
        with contextlib.suppress(asyncpg.LockNotAvailableError):
            assert await conn.fetchval("select events from dispatcher.dispatch(10)") == 0
        assert await jobs(conn) == []
    await first.close()
    assert await dispatch(conn) == 1


async def test_jobs_wake_the_delivery_workers(conn: asyncpg.Connection) -> None:
    """A pass without jobs wakes no worker."""
    await seed.device(conn)
    await seed.rule(conn)
    await breach(conn)
    async with listening(conn) as heard:
        await dispatch(conn)
        await conn.execute("select 1")
        assert heard == []
    await seed.route(conn, await seed.channel(conn))
    await seed.readings(conn, (1, 20), (2, 90))
    await evaluate(conn)
    async with listening(conn) as heard:
        await dispatch(conn)
        await conn.execute("select 1")
        assert heard == ["pulse_delivery"]
