"""Operations of people on alerts and deliveries over HTTP."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import orjson
import pytest

from services.ui_iot.routes import traces
from tests.support import seed
from tests.support.api_client import Api, open_api
from tests.support.delivery import claim, finish
from tests.support.sealer import Seal
from tests.support.wait import until

TRACE = "ab" * 16


@pytest.fixture
async def api(app_url: str, conn: asyncpg.Connection) -> AsyncIterator[Api]:
    await seed.device(conn)
    async with open_api(app_url) as opened:
        yield opened


@pytest.fixture
async def alert(conn: asyncpg.Connection, api: Api) -> int:
    """An open alert that escalates; its id."""
    channel = await seed.channel(conn)
    await seed.route(conn, channel)
    policy = await api.make(
        "/api/v1/escalation-policies", {"name": "p", "steps": [{"after_minutes": 60, "channel_id": channel}]}
    )
    await seed.rule(conn, policy_id=policy["policy_id"])
    await seed.readings(conn, (0, 90.0), trace_id=TRACE)
    await conn.execute("select evaluator.evaluate(1000)")
    return int(await conn.fetchval("select alert_id from alerts"))


async def kinds(conn: asyncpg.Connection) -> list[tuple[str, str | None]]:
    rows = await conn.fetch("select kind, actor from alert_events order by event_id")
    return [(row["kind"], row["actor"]) for row in rows]


async def test_an_alert_is_acknowledged_by_the_first_caller(api: Api, conn: asyncpg.Connection, alert: int) -> None:
    """One request succeeds, and the others report the first caller's name. The escalation ends."""
    assert await conn.fetchval("select count(*) from ops.escalations") == 1
    responses = await asyncio.gather(
        *(api.call("POST", f"/api/v1/alerts/{alert}/acknowledge", role="operator") for _ in range(10))
    )
    assert sorted(response.status_code for response in responses) == [200] + [409] * 9
    losers = [response.json()["detail"] for response in responses if response.status_code == 409]
    assert set(losers) == {f"Alice has acknowledged alert {alert} already"}
    shown = (await api.call("GET", f"/api/v1/alerts/{alert}")).json()
    assert (shown["status"], shown["acknowledged_by"]) == ("acknowledged", "Alice")
    assert shown["acknowledged_at"] is not None
    assert await kinds(conn) == [("opened", None), ("acknowledged", "operator@acme")]
    assert await conn.fetchval("select count(*) from ops.escalations") == 0
    row = await conn.fetchrow("select actor_id, source_service from audit_log where event_type = 'alert.acknowledged'")
    assert tuple(row) == ("operator@acme", "ui_iot")


async def test_an_alert_is_closed_by_a_person_with_a_reason(api: Api, conn: asyncpg.Connection, alert: int) -> None:
    responses = await asyncio.gather(
        *(
            api.call("POST", f"/api/v1/alerts/{alert}/close", role="operator", json={"reason": "valve replaced"})
            for _ in range(5)
        )
    )
    assert sorted(response.status_code for response in responses) == [200] + [409] * 4
    shown = (await api.call("GET", f"/api/v1/alerts/{alert}")).json()
    assert (shown["status"], shown["close_reason"]) == ("closed", "valve replaced")
    assert await kinds(conn) == [("opened", None), ("closed", "operator@acme")]
    assert await conn.fetchval("select count(*) from rule_state") == 0
    for act, body in (("acknowledge", None), ("silence", {"until": None}), ("close", {"reason": "again"})):
        response = await api.call("POST", f"/api/v1/alerts/{alert}/{act}", json=body)
        assert (response.status_code, response.json()["detail"]) == (409, f"alert {alert} is closed")
    # The condition still holds, so the next reading opens another.
    await seed.readings(conn, (60, 91.0))
    await conn.execute("select evaluator.evaluate(1000)")
    assert await conn.fetchval("select count(*) from alerts where status = 'open'") == 1


async def test_a_silence_suppresses_what_follows_and_moves_the_escalation(
    api: Api, conn: asyncpg.Connection, alert: int
) -> None:
    until_when = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=8)
    path = f"/api/v1/alerts/{alert}/silence"
    response = await api.call("POST", path, role="operator", json={"until": until_when.isoformat()})
    assert response.status_code == 200, response.text
    assert datetime.fromisoformat(response.json()["silenced_until"]) == until_when
    assert await conn.fetchval("select due_at from ops.escalations") == until_when
    await conn.execute("select dispatcher.dispatch(100)")
    shown = (await api.call("GET", f"/api/v1/alerts/{alert}")).json()
    assert [event["kind"] for event in shown["events"]] == ["opened", "silenced"]
    assert [entry["reason"] for entry in shown["suppressions"]] == ["silenced", "not_announced"]
    ended = await api.call("POST", path, role="operator", json={"until": None})
    assert ended.json()["silenced_until"] is None
    due = await conn.fetchval("select due_at from ops.escalations")
    assert due < until_when


async def test_a_silence_holds_for_the_alert_that_reopens(api: Api, conn: asyncpg.Connection, alert: int) -> None:
    until_when = (datetime.now(UTC) + timedelta(hours=8)).isoformat()
    path = f"/api/v1/alerts/{alert}/silence"
    assert (await api.call("POST", path, json={"until": until_when})).status_code == 200
    await api.call("POST", f"/api/v1/alerts/{alert}/close", json={"reason": "x"})
    await seed.readings(conn, (60, 91.0))
    await conn.execute("select evaluator.evaluate(1000)")
    (reopened,) = (await api.call("GET", "/api/v1/alerts?status=open")).json()["items"]
    assert reopened["silenced_until"] is not None
    ended = await api.call("POST", path, role="operator", json={"until": None})
    assert (ended.status_code, ended.json()["alert_id"]) == (200, alert)
    assert (await api.call("GET", f"/api/v1/alerts/{reopened['alert_id']}")).json()["silenced_until"] is None


async def test_a_silence_ends_for_its_tenant_only(api: Api, conn: asyncpg.Connection, alert: int) -> None:
    """Another tenant's silence with the same fingerprint stays."""
    await seed.tenant(conn, "other")
    path = f"/api/v1/alerts/{alert}/silence"
    await api.call("POST", path, json={"until": (datetime.now(UTC) + timedelta(hours=8)).isoformat()})
    await conn.execute(
        "insert into evaluator.silences (tenant_id, fingerprint, silenced_until)"
        " select 'other', fingerprint, silenced_until from evaluator.silences"
    )
    assert (await api.call("POST", path, json={"until": None})).status_code == 200
    assert [row[0] for row in await conn.fetch("select tenant_id from evaluator.silences")] == ["other"]


async def test_a_channel_that_waits_says_so_and_is_resumed(api: Api, conn: asyncpg.Connection, alert: int) -> None:
    """The pause shows in the channel, the delivery and the alert's decisions. A person ends it."""
    await conn.execute("select dispatcher.dispatch(100)")
    (claimed,) = await claim(conn)
    await finish(conn, [claimed], "limited", status=429, error="HTTP 429: slow down", retry_after=3600)
    path = f"/api/v1/channels/{claimed['channel_id']}"
    for shown in (
        (await api.call("GET", path, role="viewer")).json(),
        (await api.call("GET", f"/api/v1/deliveries/{claimed['job_id']}")).json(),
        (await api.call("GET", f"/api/v1/alerts/{alert}")).json()["decisions"][0],
    ):
        assert datetime.fromisoformat(shown["paused_until"]) > datetime.now(UTC) + timedelta(minutes=50)
        assert shown["last_error"] == "HTTP 429: slow down"
    assert (await api.call("POST", f"{path}/resume", role="operator")).status_code == 403
    assert (await api.call("POST", f"{path}/resume", tenant="other")).status_code == 404
    resumed = await api.call("POST", f"{path}/resume")
    assert (resumed.status_code, resumed.json()["paused_until"]) == (200, None)
    (again,) = await claim(conn)
    await finish(conn, [again])
    story = (await api.call("GET", f"/api/v1/alerts/{alert}")).json()
    assert [(entry["decision"], entry["paused_until"]) for entry in story["decisions"]] == [("delivered", None)]
    assert (await api.call("GET", path)).json()["last_success_at"] is not None
    await api.call("PATCH", path, json={"enabled": False})
    off = await api.call("POST", f"{path}/resume")
    assert (off.status_code, "enable it" in off.json()["detail"]) == (409, True)


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"until": "tomorrow"},
        {"until": "2026-01-05T12:00:00"},
        {"until": (datetime.now(UTC) - timedelta(seconds=5)).isoformat()},
        {"until": (datetime.now(UTC) + timedelta(days=31)).isoformat()},
        {"until": "9999-12-31T23:59:59Z"},
        {"until": 1e300},
        {"until": None, "reason": "x"},
    ],
)
async def test_a_silence_without_a_sensible_end_is_refused(
    api: Api, conn: asyncpg.Connection, alert: int, body: dict[str, Any]
) -> None:
    response = await api.call("POST", f"/api/v1/alerts/{alert}/silence", json=body)
    assert response.status_code == 422
    assert await conn.fetchval("select silenced_until from alerts") is None


async def test_an_alert_that_is_not_there_is_404_for_every_act(api: Api, alert: int) -> None:
    acts: list[tuple[str, Any]] = [
        ("acknowledge", None),
        ("close", {"reason": "x"}),
        ("silence", {"until": (datetime.now(UTC) + timedelta(hours=1)).isoformat()}),
    ]
    for act, body in acts:
        missing = await api.call("POST", f"/api/v1/alerts/999999/{act}", json=body)
        foreign = await api.call("POST", f"/api/v1/alerts/{alert}/{act}", json=body, tenant="other")
        assert (missing.status_code, foreign.status_code) == (404, 404), act


async def test_alerts_are_listed_newest_first_and_filtered(api: Api, conn: asyncpg.Connection, alert: int) -> None:
    other = await seed.rule(conn, name="cold", operator="<", threshold=10.0, severity="critical")
    await seed.device(conn, "boiler-2")
    await seed.readings(conn, (60, 1.0, "boiler-2"))
    await conn.execute("select evaluator.evaluate(1000)")
    await api.call("POST", f"/api/v1/alerts/{alert}/acknowledge")

    async def ids(query: str) -> list[int]:
        response = await api.call("GET", f"/api/v1/alerts?{query}", role="viewer")
        assert response.status_code == 200, response.text
        return [item["alert_id"] for item in response.json()["items"]]

    second = alert + 1
    assert await ids("") == [second, alert]
    assert await ids("status=acknowledged") == [alert]
    assert await ids("status=acknowledged&status=open") == [second, alert]
    assert await ids("status=closed") == []
    assert await ids("severity=critical") == [second]
    assert await ids(f"rule_id={other}") == [second]
    assert await ids("device_id=boiler-1") == [alert]
    assert await ids(f"trace_id={TRACE}") == [alert]
    assert await ids("opened_since=2026-01-05T12:01:00Z") == [second]
    assert await ids("opened_until=2026-01-05T12:01:00Z") == [alert]
    for wrong in ("status=gone", "rule_id=x", "trace_id=abc", "opened_since=2026-01-05T12:00:00", "sverity=critical"):
        assert (await api.call("GET", f"/api/v1/alerts?{wrong}")).status_code == 422, wrong


@pytest.fixture
async def job(conn: asyncpg.Connection, alert: int) -> int:
    """The notification of the alert, dead after one refused attempt; its id."""
    await conn.execute("select dispatcher.dispatch(100)")
    job_id = int(await conn.fetchval("select job_id from notification_jobs"))
    await conn.execute(
        "update notification_jobs set state = 'dead', finished_at = now(), attempts = 1, last_error = 'HTTP 400'"
    )
    await conn.execute(
        "insert into delivery_attempts"
        " (tenant_id, job_id, channel_id, attempt, lease_epoch, worker, outcome, status_code, trace_id)"
        " select tenant_id, job_id, channel_id, 1, 1, 'w', 'refused', 400, trace_id from notification_jobs"
    )
    return job_id


async def test_a_delivery_is_shown_with_its_tries_and_driven_again(
    api: Api, conn: asyncpg.Connection, job: int
) -> None:
    path = f"/api/v1/deliveries/{job}"
    shown = (await api.call("GET", path, role="viewer")).json()
    assert (shown["state"], shown["channel_name"], shown["trace_id"]) == ("dead", "sink", TRACE)
    assert [(entry["outcome"], entry["status_code"]) for entry in shown["tries"]] == [("refused", 400)]
    assert "payload" not in shown
    assert [item["job_id"] for item in (await api.call("GET", "/api/v1/deliveries?state=dead")).json()["items"]] == [
        job
    ]
    assert (await api.call("GET", "/api/v1/deliveries?state=pending")).json()["items"] == []
    assert (await api.call("POST", f"{path}/redrive", role="operator")).status_code == 403
    responses = await asyncio.gather(*(api.call("POST", f"{path}/redrive") for _ in range(5)))
    assert sorted(response.status_code for response in responses) == [200] + [409] * 4
    assert (await api.call("GET", path)).json()["state"] == "pending"
    row = await conn.fetchrow("select actor_id from audit_log where event_type = 'delivery.redriven'")
    assert row["actor_id"] == "admin@acme"


async def test_a_trace_shows_its_steps_in_order_of_time(api: Api, conn: asyncpg.Connection, job: int) -> None:
    response = await api.call("GET", f"/api/v1/traces/{TRACE}", role="auditor")
    assert response.status_code == 200, response.text
    body = response.json()
    assert (body["trace_id"], body["truncated"]) == (TRACE, False)
    assert [step["at"] for step in body["steps"]] == sorted(step["at"] for step in body["steps"])
    assert [step["kind"] for step in body["steps"] if step["kind"] != "audit"] == [
        "reading", "evaluation", "alert", "event", "job", "attempt"
    ]  # fmt: skip
    what = {step["span_id"]: step["what"] for step in body["steps"]}
    assert {step["what"] for step in body["steps"] if step["parent_span_id"] is None} == {
        "temperature is 90", "1 readings accepted"
    }  # fmt: skip
    assert {what[step["parent_span_id"]] for step in body["steps"] if step["kind"] == "job"} == {"alert opened"}
    spelled = f"{TRACE[:8]}-{TRACE[8:12]}-{TRACE[12:16]}-{TRACE[16:20]}-{TRACE[20:]}".upper()
    assert (await api.call("GET", f"/api/v1/traces/{spelled}")).json() == body
    for wrong in ("0" * 32, "f" * 32, "x", "%00", "a" * 37):
        assert (await api.call("GET", f"/api/v1/traces/{wrong}")).status_code in (404, 422), wrong
    assert (await api.call("GET", f"/api/v1/traces/{TRACE}", tenant="other")).status_code == 404


@pytest.mark.usefixtures("job")
async def test_a_trace_that_takes_too_long_gives_its_connection_back(
    api: Api, conn: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The caller gets the reason, and no internal error is counted."""
    monkeypatch.setattr(traces, "MOST_SECONDS", 0.1)
    async with conn.transaction():
        await conn.execute("lock table public.telemetry")
        response = await api.call("GET", f"/api/v1/traces/{TRACE}")
    assert (response.status_code, response.json()["detail"]) == (422, "The trace has too many rows to be read in time.")
    monkeypatch.undo()
    assert (await api.call("GET", f"/api/v1/traces/{TRACE}")).status_code == 200


@pytest.mark.usefixtures("job")
async def test_a_long_trace_is_cut_by_time_and_stays_a_tree(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """Later steps are left out and the response is marked as truncated. A step without its parent becomes a root."""
    path = f"/api/v1/traces/{TRACE}"
    whole = (await api.call("GET", path)).json()["steps"]
    for most in range(1, len(whole) + 1):
        monkeypatch.setattr(traces, "MOST_STEPS", most)
        body = (await api.call("GET", path)).json()
        assert [step["span_id"] for step in body["steps"]] == [step["span_id"] for step in whole[:most]]
        assert body["truncated"] == (most < len(whole))
        known = {step["span_id"] for step in body["steps"]}
        assert {step["parent_span_id"] for step in body["steps"]} <= known | {None}
    assert traces.close_tree([{"span_id": "a", "parent_span_id": "b"}]) == [{"span_id": "a", "parent_span_id": None}]


async def test_the_audit_trail_is_read_filtered_and_reading_is_an_event(
    api: Api, conn: asyncpg.Connection, seal: Seal, alert: int
) -> None:
    await api.call("POST", f"/api/v1/alerts/{alert}/acknowledge", headers={"X-Trace-ID": "cd" * 16})

    async def read(query: str) -> list[dict[str, Any]]:
        await seal()
        response = await api.call("GET", f"/api/v1/audit/events?{query}", role="auditor")
        assert response.status_code == 200, response.text
        items: list[dict[str, Any]] = response.json()["items"]
        return items

    async def logged_in() -> list[dict[str, Any]]:
        return await read("event_type=auth.login_success&actor_id=admin@acme")

    found = await until(logged_in)
    assert found[0]["ip_address"] == "203.0.113.9"
    assert await read("ip_address=203.0.113.9&category=auth")
    assert await read("ip_address=203.0.113.10") == []
    [taken] = await read(f"trace_id={'cd' * 16}&category=alert")
    assert (taken["event_type"], taken["entity_id"], taken["actor_id"]) == (
        "alert.acknowledged",
        str(alert),
        "admin@acme",
    )
    assert await read(f"since={taken['timestamp'].replace('+', '%2B')}&event_type=alert.acknowledged") == [taken]
    assert await read(f"until={taken['timestamp'].replace('+', '%2B')}&event_type=alert.acknowledged") == []
    assert {item["severity"] for item in await read("severity=warning")} == {"warning"}
    for wrong in ("event_type=%00", "category=x", "ip_address=1.2.3", "since=now", "limit=201", "limit=0", "x=y"):
        assert (await api.call("GET", f"/api/v1/audit/events?{wrong}")).status_code == 422, wrong

    async def reads() -> list[asyncpg.Record]:
        return list(
            await conn.fetch(
                "select actor_id, details::text d from audit_log where event_type = 'audit.read' order by timestamp"
            )
        )

    first = (await until(reads))[0]
    assert first["actor_id"] == "auditor@acme"
    assert orjson.loads(first["d"])["filter"]["event_type"] == "auth.login_success"


async def test_requests_of_one_trace_that_overlap_keep_their_changes(api: Api, conn: asyncpg.Connection) -> None:
    """A caller may send parallel requests under one traceparent. A viewer sees no details of the trail."""
    for number in range(4):
        await seed.device(conn, f"pump-{number}")
    headers = {"X-Trace-ID": TRACE}
    body = {"name": "Pump"}
    paths = [f"/api/v1/devices/pump-{number}" for number in range(4)]
    done = await asyncio.gather(*(api.call("PATCH", path, json=body, headers=headers) for path in paths))
    assert [response.status_code for response in done] == [200] * 4
    steps = (await api.call("GET", f"/api/v1/traces/{TRACE}")).json()["steps"]
    requests = {step["span_id"]: step["what"] for step in steps if step["kind"] == "request"}
    changes = {step["entity_id"]: requests[step["parent_span_id"]] for step in steps if step["entity_type"] == "device"}
    assert changes == {path.rsplit("/", 1)[1]: f"PATCH {path}" for path in paths}
    seen = (await api.call("GET", f"/api/v1/traces/{TRACE}", role="viewer")).json()["steps"]
    assert {tuple(step["details"]) for step in seen if step["kind"] in ("request", "audit")} == {("event_type",)}
