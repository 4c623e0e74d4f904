"""The effect of changed rules and devices on alerts, and of last known values on a new rule."""

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import asyncpg
import orjson
import pytest

from services.delivery_worker.notification import Notification
from tests.support import clock, seed
from tests.support.api_client import Api, open_api
from tests.support.evaluation import evaluate, story

RULE: dict[str, Any] = {"name": "too hot", "metric": "temperature", "operator": ">", "threshold": 80}


async def at(conn: asyncpg.Connection, seconds: float) -> None:
    """Set the server's clock to seconds after NOON."""
    await conn.execute(clock.set_clock(seed.NOON + timedelta(seconds=seconds)))


@pytest.fixture
async def api(app_url: str, conn: asyncpg.Connection) -> AsyncIterator[Api]:
    """The API with a stopped clock, a device in a group, and a channel that is notified of every alert."""
    await conn.execute(clock.create_clock(seed.NOON))
    await seed.device(conn, tags=("hot",))
    await seed.route(conn, await seed.channel(conn))
    async with open_api(app_url) as opened:
        yield opened


async def change(api: Api, rule: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """Change a rule over HTTP."""
    response = await api.call("PATCH", f"/api/v1/rules/{rule['rule_id']}", json=changes)
    assert response.status_code == 200, response.text
    return dict(response.json())


async def state(conn: asyncpg.Connection) -> list[tuple[str, str]]:
    """Return device and status of each alert, in order of opening."""
    rows = await conn.fetch("select device_id, status from alerts order by alert_id")
    return [(row["device_id"], row["status"]) for row in rows]


async def test_an_edit_that_leaves_the_condition_true_keeps_the_alert(api: Api, conn: asyncpg.Connection) -> None:
    """Acknowledgement and silence stay; severity, name and message follow, and the channel is notified."""
    rule = await api.make("/api/v1/rules", RULE)
    await seed.readings(conn, (0, 90.5), trace_id="a" * 32)
    await evaluate(conn)
    await conn.fetch("select dispatcher.dispatch(100)")
    (alert_id,) = await conn.fetchrow("select alert_id from alerts")
    await api.call("POST", f"/api/v1/alerts/{alert_id}/acknowledge")
    await conn.execute("update alerts set silenced_until = $1", seed.NOON + timedelta(days=1))

    await change(api, rule, threshold=1000001, operator="<", severity="critical", name="hotter")

    alert = await conn.fetchrow("select * from alerts")
    assert (alert["status"], alert["severity"], alert["rule_name"]) == ("acknowledged", "critical", "hotter")
    assert alert["message"] == "temperature of boiler-1 is 90.5 (< 1000001)"
    assert alert["silenced_until"] == seed.NOON + timedelta(days=1)
    assert [kind for kind, _ in await story(conn)] == ["opened", "acknowledged", "updated"]
    await conn.fetch("select dispatcher.dispatch(100)")
    assert await conn.fetchval("select reason from suppressions") == "silenced"
    audited = await conn.fetchrow("select actor_id, entity_name from audit_log where event_type = 'alert.updated'")
    assert tuple(audited) == ("admin@acme", "hotter")

    await conn.execute("update alerts set silenced_until = null")
    await change(api, rule, severity="error")
    await conn.fetch("select dispatcher.dispatch(100)")
    payload = await conn.fetchval("select payload::text from notification_jobs order by job_id desc limit 1")
    notification = Notification.model_validate(orjson.loads(payload))
    assert (notification.kind, notification.alert.severity, notification.alert.status) == (
        "updated",
        "error",
        "acknowledged",
    )
    await seed.readings(conn, (1, 2000000))
    await evaluate(conn)
    closing = await conn.fetchrow("select value, message from alert_events where kind = 'closed'")
    assert tuple(closing) == (2000000.0, "temperature of boiler-1 is 2000000 (no longer < 1000001)")


async def test_a_raised_severity_reaches_the_routes_of_that_severity(api: Api, conn: asyncpg.Connection) -> None:
    pager = await seed.channel(conn, "pager")
    await seed.route(conn, pager, min_severity="critical")
    rule = await api.make("/api/v1/rules", RULE)
    await seed.readings(conn, (0, 90))
    await evaluate(conn)
    await conn.fetch("select dispatcher.dispatch(100)")
    assert await conn.fetchval("select count(*) from notification_jobs where channel_id = $1", pager) == 0
    await change(api, rule, severity="critical")
    await seed.readings(conn, (1, 20))
    await evaluate(conn)
    await conn.fetch("select dispatcher.dispatch(100)")
    rows = await conn.fetch("select kind from notification_jobs where channel_id = $1 order by job_id", pager)
    assert [row["kind"] for row in rows] == ["updated", "closed"]
    assert await conn.fetchval("select count(*) from trace.orphans") == 0


@pytest.mark.parametrize(
    ("changes", "kinds"),
    [
        ({"threshold": 95}, ["opened", "closed"]),
        ({"operator": "<"}, ["opened", "closed"]),
        ({"tag": "others"}, ["opened", "closed"]),
        ({"metric": "pressure"}, ["opened", "closed"]),
        ({"tag": "hot"}, ["opened"]),
        ({"device_id": "boiler-1"}, ["opened"]),
        ({"for_seconds": 3600}, ["opened", "updated"]),
        ({"threshold": 85}, ["opened", "updated"]),
        ({"name": "new"}, ["opened", "updated"]),
        ({"policy_id": None}, ["opened"]),
    ],
)
async def test_each_change_of_a_rule(
    api: Api, conn: asyncpg.Connection, changes: dict[str, Any], kinds: list[str]
) -> None:
    """An alert stays open exactly if its condition still holds for its device."""
    rule = await api.make("/api/v1/rules", RULE)
    await seed.readings(conn, (0, 90))
    await evaluate(conn)
    await change(api, rule, **changes)
    await evaluate(conn)
    assert [kind for kind, _ in await story(conn)] == kinds
    if kinds[-1] == "closed":
        event = await conn.fetchrow("select message from alert_events where kind = 'closed'")
        assert event["message"] == "temperature of boiler-1 was 90 at the end: rule changed"
        assert await conn.fetchval("select close_reason from alerts") == "rule changed"


async def test_disabling_closes_and_enabling_judges_the_last_value(api: Api, conn: asyncpg.Connection) -> None:
    rule = await api.make("/api/v1/rules", {**RULE, "device_id": "boiler-1"})
    await seed.readings(conn, (0, 90), trace_id="a" * 32)
    await evaluate(conn)
    await at(conn, 10)
    await change(api, rule, enabled=False)
    assert await conn.fetchval("select close_reason from alerts") == "rule disabled"
    await at(conn, 20)
    await change(api, rule, enabled=True)
    assert await story(conn) == [("opened", 0), ("closed", 10), ("opened", 20)]
    assert await conn.fetchval("select trace_id from alerts where status = 'open'") == "a" * 32
    await at(conn, 30)
    await seed.readings(conn, (30, 20))
    await evaluate(conn)
    assert (await story(conn))[-1] == ("closed", 30)


async def test_a_new_rule_starts_its_timer_at_the_last_value(api: Api, conn: asyncpg.Connection) -> None:
    """for_seconds counts from now, although the value is ten minutes old and its clock ten minutes behind."""
    await seed.readings(conn, (-600, 90))
    await evaluate(conn)
    await at(conn, 600)
    await api.make("/api/v1/rules", {**RULE, "for_seconds": 60})
    await at(conn, 601)
    await seed.readings(conn, (1, 91))
    await evaluate(conn)
    assert await story(conn) == []
    await at(conn, 660)
    await evaluate(conn)
    assert await story(conn) == [("opened", 60)]


async def test_a_value_of_yesterday_is_not_judged(api: Api, conn: asyncpg.Connection) -> None:
    """Only the next reading of a device that was silent for a day is evaluated."""
    await seed.readings(conn, (0, 90))
    await evaluate(conn)
    await at(conn, 86_400)
    await api.make("/api/v1/rules", RULE)
    assert await story(conn) == []


async def test_a_value_that_waits_in_the_inbox_is_judged_once(api: Api, conn: asyncpg.Connection) -> None:
    """The pass evaluates it by the new rule, and the quiet reading after it still counts."""
    await seed.readings(conn, (-5, 90), (-4, 20), (-3, 90))
    await api.make("/api/v1/rules", RULE)
    assert await story(conn) == []
    await evaluate(conn)
    assert await story(conn) == [("opened", -5), ("closed", -4), ("opened", -3)]


async def test_tagging_a_device_judges_its_last_value(api: Api, conn: asyncpg.Connection) -> None:
    """Only rules of the new tag apply, and removing the tag closes their alerts."""
    await seed.device(conn, "boiler-2")
    await api.make("/api/v1/rules", {**RULE, "tag": "old"})
    await api.make("/api/v1/rules", {**RULE, "tag": "hot"})
    await seed.readings(conn, (0, 90, "boiler-2"))
    await evaluate(conn)
    await api.make("/api/v1/rules", {**RULE, "tag": "new"})
    assert await state(conn) == []
    await api.call("PATCH", "/api/v1/devices/boiler-2", json={"tags": ["hot"]})
    assert await state(conn) == [("boiler-2", "open")]
    await api.call("PATCH", "/api/v1/devices/boiler-2", json={"tags": []})
    assert await state(conn) == [("boiler-2", "closed")]


async def test_an_alert_that_a_person_closed_stays_closed_over_an_edit(api: Api, conn: asyncpg.Connection) -> None:
    """An edit reopens it only if the result for its device changes."""
    rule = await api.make("/api/v1/rules", RULE)
    await seed.readings(conn, (0, 90))
    await evaluate(conn)
    (alert_id,) = await conn.fetchrow("select alert_id from alerts")
    await api.call("POST", f"/api/v1/alerts/{alert_id}/close", json={"reason": "known"})
    await change(api, rule, threshold=70)
    assert await state(conn) == [("boiler-1", "closed")]
    await change(api, rule, threshold=95)
    await change(api, rule, threshold=85)
    assert await state(conn) == [("boiler-1", "closed"), ("boiler-1", "open")]


async def test_a_pending_breach_follows_its_rule(api: Api, conn: asyncpg.Connection) -> None:
    """Another for_seconds moves its end; another comparison restarts or ends it."""
    rule = await api.make("/api/v1/rules", {**RULE, "for_seconds": 600})
    await seed.readings(conn, (0, 90))
    await evaluate(conn)
    await at(conn, 50)
    await change(api, rule, for_seconds=60)
    await evaluate(conn)
    assert await story(conn) == []
    await change(api, rule, threshold=85)
    await at(conn, 109)
    await evaluate(conn)
    assert await story(conn) == []
    await at(conn, 110)
    await evaluate(conn)
    assert await story(conn) == [("opened", 110)]
    await change(api, rule, threshold=95)
    assert await conn.fetchval("select count(*) from rule_state") == 0


@pytest.mark.parametrize(
    ("operator", "threshold"),
    [(">", 70), (">=", 80), (">=", 80.5), ("!=", 80)],
    ids=["lower", "equal", "higher", "other"],
)
async def test_a_looser_comparison_keeps_the_time_of_a_pending_breach(
    api: Api, conn: asyncpg.Connection, operator: str, threshold: float
) -> None:
    """The value has met the looser condition since the breach began, so the alert opens at the original time."""
    rule = await api.make("/api/v1/rules", {**RULE, "for_seconds": 60})
    await seed.readings(conn, (0, 90))
    await evaluate(conn)
    await at(conn, 50)
    await change(api, rule, operator=operator, threshold=threshold)
    await at(conn, 61)
    await evaluate(conn)
    is_looser = threshold <= 80 and operator != "!="
    assert await story(conn) == ([("opened", 60)] if is_looser else [])


async def test_a_shorter_for_seconds_opens_at_once(api: Api, conn: asyncpg.Connection) -> None:
    rule = await api.make("/api/v1/rules", {**RULE, "for_seconds": 600})
    await seed.readings(conn, (0, 90))
    await evaluate(conn)
    await at(conn, 50)
    await change(api, rule, for_seconds=0)
    await evaluate(conn)
    assert await story(conn) == [("opened", 0)]


async def test_a_rule_for_a_deleted_device_is_disabled_with_a_reason(api: Api, conn: asyncpg.Connection) -> None:
    """It stays disabled when a device of that id returns, and cannot be enabled while none exists."""
    rule = await api.make("/api/v1/rules", {**RULE, "device_id": "boiler-1"})
    await conn.execute("update devices set name = 'Boiler 1'")
    await seed.readings(conn, (0, 90))
    await evaluate(conn)
    await at(conn, 5)
    assert (await api.call("DELETE", "/api/v1/devices/boiler-1")).status_code == 204
    path = f"/api/v1/rules/{rule['rule_id']}"
    disabled = (await api.call("GET", path)).json()
    assert (disabled["enabled"], disabled["disabled_reason"]) == (False, "device boiler-1 was deleted")
    assert (await api.call("PATCH", path, json={"enabled": True})).status_code == 422
    await conn.fetch("select dispatcher.dispatch(100)")
    payloads = await conn.fetch("select payload::text from notification_jobs order by job_id")
    notifications = [Notification.model_validate(orjson.loads(row["payload"])) for row in payloads]
    assert [(each.kind, each.alert.device_name) for each in notifications] == [
        ("opened", "Boiler 1"),
        ("closed", "Boiler 1"),
    ]
    assert notifications[1].alert.message == "temperature of boiler-1 was 90 at the end: device deleted"
    await api.make("/api/v1/devices", {"device_id": "boiler-1", "name": "Another"})
    assert (await api.call("GET", path)).json()["enabled"] is False
    enabled = await change(api, rule, enabled=True)
    assert (enabled["enabled"], enabled["disabled_reason"]) == (True, None)
    assert await state(conn) == [("boiler-1", "closed")]


async def test_a_rule_that_a_whole_fleet_breaches_leaves_the_alerts_to_the_evaluator(
    api: Api, conn: asyncpg.Connection
) -> None:
    """More than 1,000 alerts are not opened within the request, but by the next pass."""
    await conn.execute(
        "insert into devices (tenant_id, device_id, name)"
        " select 'acme', 'd' || n, 'd' || n from generate_series(1, 1001) n"
    )
    await seed.readings(conn, *[(0, 90, f"d{number}") for number in range(1, 1002)])
    await evaluate(conn)
    await api.make("/api/v1/rules", RULE)
    assert await state(conn) == []
    await evaluate(conn)
    assert await conn.fetchval("select count(*) from alerts where status = 'open'") == 1001
