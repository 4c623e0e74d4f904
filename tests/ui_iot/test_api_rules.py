"""Rules, channels, routes and escalation policies over HTTP, and their references to each other."""

import asyncio
from typing import Any

import asyncpg
import orjson
import pytest

from tests.support import seed
from tests.support.api_client import Api, open_api

SECRET = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz"
RULE: dict[str, Any] = {"name": "too hot", "metric": "temperature", "operator": ">", "threshold": 80}
WEBHOOK: dict[str, Any] = {
    "name": "hook",
    "kind": "webhook",
    "config": {"url": "https://hooks.example.com/a/b?key=s3cret", "secret": SECRET},
}
SLACK = {"name": "slack", "kind": "slack", "config": {"url": "https://hooks.slack.com/services/T0/B0/s3cret"}}
TEAMS = {"name": "teams", "kind": "teams", "config": {"url": "https://example.logic.azure.com/workflows/s3cret"}}
PAGERDUTY = {"name": "pd", "kind": "pagerduty", "config": {"routing_key": "s3cret" + "0" * 26}}


async def test_a_rule_lives_its_life(api: Api, conn: asyncpg.Connection) -> None:
    made = await api.make("/api/v1/rules", {**RULE, "tag": "hot", "for_seconds": 60, "severity": "critical"})
    path = f"/api/v1/rules/{made['rule_id']}"
    assert (await api.call("GET", path, role="auditor")).json() == made
    changed = await api.call("PATCH", path, json={"threshold": 85.5, "tag": None, "name": "hotter"})
    assert changed.json() == {
        **made,
        "threshold": 85.5,
        "tag": None,
        "name": "hotter",
        "updated_at": changed.json()["updated_at"],
    }
    assert changed.json()["updated_at"] > made["updated_at"]
    same = await api.call("PATCH", path, json={})
    assert same.json() == changed.json()
    assert (await api.call("DELETE", path)).status_code == 204
    assert (await api.call("GET", path)).status_code == 404
    types = await conn.fetch("select event_type from audit_log where category = 'config' order by recorded_at")
    assert [row["event_type"] for row in types] == ["config.rule_created", "config.rule_updated", "config.rule_deleted"]


@pytest.mark.parametrize(
    ("body", "close_reason"),
    [
        ({"enabled": False}, "rule disabled"),
        ({"threshold": 95}, "rule changed"),
        ({"tag": "others"}, "rule changed"),
        (None, "rule deleted"),
    ],
)
async def test_a_rule_that_ends_or_changes_closes_its_alerts(
    api: Api, conn: asyncpg.Connection, body: dict[str, Any] | None, close_reason: str
) -> None:
    """The alerts close in the same transaction, with an event. Alerts of other rules stay open."""
    await seed.device(conn)
    rule = await api.make("/api/v1/rules", RULE)
    other = await api.make("/api/v1/rules", {**RULE, "name": "other"})
    await seed.readings(conn, (0, 90.0))
    await conn.execute("select evaluator.evaluate(1000)")
    path = f"/api/v1/rules/{rule['rule_id']}"
    response = await api.call("DELETE", path) if body is None else await api.call("PATCH", path, json=body)
    assert response.is_success, response.text
    rows = {row["rule_id"]: row for row in await conn.fetch("select rule_id, status, close_reason from alerts")}
    assert tuple(rows[rule["rule_id"]])[1:] == ("closed", close_reason)
    assert tuple(rows[other["rule_id"]])[1:] == ("open", None)
    assert [row["rule_id"] for row in await conn.fetch("select rule_id from rule_state")] == [other["rule_id"]]
    kinds = await conn.fetch(
        "select kind, actor from alert_events e join alerts a using (tenant_id, alert_id)"
        " where rule_id = $1 order by event_id",
        rule["rule_id"],
    )
    assert [tuple(row) for row in kinds] == [("opened", None), ("closed", "admin@acme")]


async def test_a_name_or_severity_that_changes_closes_nothing(api: Api, conn: asyncpg.Connection) -> None:
    await seed.device(conn)
    rule = await api.make("/api/v1/rules", RULE)
    await seed.readings(conn, (0, 90.0))
    await conn.execute("select evaluator.evaluate(1000)")
    await api.call(
        "PATCH", f"/api/v1/rules/{rule['rule_id']}", json={"name": "new", "severity": "info", "threshold": 80.0}
    )
    assert await conn.fetchval("select status from alerts") == "open"


@pytest.mark.parametrize(
    "change",
    [
        {"name": ...},
        {"operator": "=="},
        {"operator": "> 1 or true"},
        {"threshold": "80"},
        {"threshold": None},
        {"threshold": True},
        {"for_seconds": -1},
        {"for_seconds": 604801},
        {"for_seconds": 1.5},
        {"severity": "fatal"},
        {"metric": "two words"},
        {"enabled": 1},
        {"device_id": "nobody"},
        {"policy_id": 999},
        {"policy_id": 0},
        {"policy_id": 2**70},
        {"rule_id": 7},
        {"unknown": 1},
    ],
)
async def test_a_rule_that_makes_no_sense_is_refused(
    api: Api, conn: asyncpg.Connection, change: dict[str, Any]
) -> None:
    body = {name: value for name, value in {**RULE, **change}.items() if value is not ...}
    response = await api.call("POST", "/api/v1/rules", json=body)
    assert response.status_code == 422, response.text
    assert await conn.fetchval("select count(*) from alert_rules") == 0
    rule = await api.make("/api/v1/rules", RULE)
    if change != {"name": ...}:
        patched = await api.call("PATCH", f"/api/v1/rules/{rule['rule_id']}", json=change)
        assert patched.status_code == 422, patched.text
        assert (await api.call("GET", f"/api/v1/rules/{rule['rule_id']}")).json() == rule


async def test_infinity_is_no_threshold(api: Api) -> None:
    for text in (b"1e999", b"Infinity", b"NaN"):
        body = orjson.dumps(RULE).replace(b"80", text)
        assert (
            await api.call("POST", "/api/v1/rules", content=body, headers={"Content-Type": "application/json"})
        ).status_code == 422


async def test_a_rule_watches_a_device_or_a_tag_but_not_both(api: Api, conn: asyncpg.Connection) -> None:
    await seed.device(conn)
    response = await api.call("POST", "/api/v1/rules", json={**RULE, "device_id": "boiler-1", "tag": "hot"})
    assert (response.status_code, response.json()["detail"]) == (422, "A rule watches one device or one tag, not both.")


async def test_deleting_a_rule_takes_its_own_routes_along_and_says_so(api: Api, conn: asyncpg.Connection) -> None:
    rule = await api.make("/api/v1/rules", RULE)
    channel = await api.make("/api/v1/channels", WEBHOOK)
    body = {"name": "r", "channel_id": channel["channel_id"]}
    await api.make("/api/v1/routes", {**body, "rule_id": rule["rule_id"]})
    kept = await api.make("/api/v1/routes", body)
    await api.call("DELETE", f"/api/v1/rules/{rule['rule_id']}")
    assert [item["route_id"] for item in (await api.call("GET", "/api/v1/routes")).json()["items"]] == [
        kept["route_id"]
    ]
    assert await conn.fetchval("select count(*) from audit_log where event_type = 'config.route_deleted'") == 1


@pytest.mark.parametrize("body", [WEBHOOK, SLACK, TEAMS, PAGERDUTY], ids=lambda body: str(body["kind"]))
async def test_secrets_of_a_channel_go_in_and_never_come_out(
    api: Api, conn: asyncpg.Connection, body: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    """No answer, audit event or log line contains them. The delivery worker gets them whole."""
    caplog.set_level("DEBUG")
    made = await api.make("/api/v1/channels", body)
    path = f"/api/v1/channels/{made['channel_id']}"
    answers = [
        made,
        (await api.call("GET", path)).json(),
        (await api.call("GET", "/api/v1/channels")).json(),
        (await api.call("PATCH", path, json={"name": "renamed"})).json(),
        (await api.call("PATCH", path, json={"config": {**body["config"]}, "name": "again"})).json(),
    ]
    trail = await conn.fetch("select message, details::text, entity_name from audit_log")
    outputs = repr(answers) + repr([tuple(row) for row in trail]) + caplog.text
    assert "s3cret" not in outputs
    assert SECRET[8:] not in outputs
    assert orjson.loads(await conn.fetchval("select config::text from notification_channels")) == body["config"]


async def test_a_channels_config_is_changed_member_by_member(api: Api, conn: asyncpg.Connection) -> None:
    """A new secret keeps the address. A new address keeps nothing."""
    made = await api.make("/api/v1/channels", WEBHOOK)
    path = f"/api/v1/channels/{made['channel_id']}"
    newer = "whsec_OTg3NjU0MzIxMDk4NzY1NDMyMTA5ODc2"
    changed = await api.call("PATCH", path, json={"config": {"secret": newer}, "enabled": False})
    assert (changed.json()["config"], changed.json()["enabled"]) == (made["config"], False)
    stored = orjson.loads(await conn.fetchval("select config::text from notification_channels"))
    assert stored == {**WEBHOOK["config"], "secret": newer}
    wrong = await api.call("PATCH", path, json={"config": {"routing_key": "0" * 32}})
    assert (wrong.status_code, wrong.json()["detail"]) == (422, "webhook channels have no routing_key")
    # A masked address that is sent back does not replace the real one.
    slack = await api.make("/api/v1/channels", SLACK)
    back = await api.call("PATCH", f"/api/v1/channels/{slack['channel_id']}", json={"config": slack["config"]})
    assert back.status_code == 422


@pytest.mark.parametrize(
    ("kind", "config"),
    [
        ("webhook", {"url": "https://a.example", "secret": None}),
        ("webhook", {"secret": SECRET}),
        ("webhook", {"url": "https://a.example", "secret": "short"}),
        ("webhook", {"url": "https://a.example", "secret": "whsec_" + "A" * 20}),
        ("webhook", {"url": "https://a.example", "secret": "whsec_" + "!" * 40}),
        ("webhook", {"url": "https://a.example", "secret": SECRET, "more": "x"}),
        ("webhook", {"url": "http://a.example", "secret": SECRET}),
        ("webhook", {"url": "ftp://a.example", "secret": SECRET}),
        ("webhook", {"url": "https://user:pass@a.example", "secret": SECRET}),
        ("webhook", {"url": "https://a.example:99999", "secret": SECRET}),
        ("webhook", {"url": "https://", "secret": SECRET}),
        ("webhook", {"url": "https://a b.example", "secret": SECRET}),
        ("webhook", {"url": "https://a.example/\r\nHost: b", "secret": SECRET}),
        ("webhook", {"url": "https://127.0.0.1/x", "secret": SECRET}),
        ("webhook", {"url": "http://localhost/x", "secret": SECRET}),
        ("webhook", {"url": "https://10.0.0.1/x", "secret": SECRET}),
        ("webhook", {"url": "https://[::1]/x", "secret": SECRET}),
        ("webhook", {"url": "https://169.254.169.254/latest", "secret": SECRET}),
        ("webhook", {"url": "https://a.example/" + "x" * 2048, "secret": SECRET}),
        ("webhook", "https://a.example"),
        ("slack", {}),
        ("slack", {"url": "https://a.example", "secret": SECRET}),
        ("teams", {"url": None}),
        ("pagerduty", {"url": "https://a.example"}),
        ("pagerduty", {"routing_key": "short"}),
        ("pagerduty", {"routing_key": 7}),
        ("email", {"to": "a@example.com"}),
        (None, {}),
    ],
)
async def test_a_channel_that_could_never_work_is_refused(
    api: Api, conn: asyncpg.Connection, kind: object, config: object
) -> None:
    response = await api.call("POST", "/api/v1/channels", json={"name": "c", "kind": kind, "config": config})
    assert response.status_code == 422, response.text
    assert await conn.fetchval("select count(*) from notification_channels") == 0


async def test_a_secret_is_changed_over_in_the_receivers_time(api: Api, conn: asyncpg.Connection) -> None:
    """Both secrets sign until the old one is removed, and neither is ever shown."""
    newer = "whsec_OTg3NjU0MzIxMDk4NzY1NDMyMTA5ODc2"
    path = f"/api/v1/channels/{(await api.make('/api/v1/channels', WEBHOOK))['channel_id']}"
    changed = await api.call("PATCH", path, json={"config": {"secret": newer, "previous_secrets": [SECRET]}})
    assert changed.status_code == 200, changed.text
    assert list(changed.json()["config"]) == ["url"]
    stored = orjson.loads(await conn.fetchval("select config::text from notification_channels"))
    assert (stored["secret"], stored["previous_secrets"]) == (newer, [SECRET])
    assert (await api.call("PATCH", path, json={"config": {"previous_secrets": []}})).status_code == 200
    for wrong in (["short"], [SECRET] * 5, SECRET, [7]):
        response = await api.call("PATCH", path, json={"config": {"previous_secrets": wrong}})
        assert response.status_code == 422, wrong


async def test_the_demo_may_deliver_to_this_machine(app_url: str, conn: asyncpg.Connection) -> None:
    await seed.tenant(conn)
    async with open_api(app_url, allow_private_destinations=True) as api:
        local = {**WEBHOOK, "config": {"url": "http://127.0.0.1:8087/hook", "secret": SECRET}}
        await api.make("/api/v1/channels", local)
        away = {**WEBHOOK, "name": "b", "config": {"url": "http://10.0.0.1/hook", "secret": SECRET}}
        assert (await api.call("POST", "/api/v1/channels", json=away)).status_code == 422


async def test_the_database_enforces_the_same_rule_without_the_api(conn: asyncpg.Connection) -> None:
    await seed.tenant(conn)
    async with conn.transaction():
        await conn.execute("select set_config('pulse.tenant_id', 'acme', true)")
        for config in (
            '{"url": "http://a.example"}',
            '{"url": 7}',
            '{"url": "https://a.example", "x": "y"}',
            '{"url": "https://a.example", "previous_secrets": []}',
            "{}",
        ):
            with pytest.raises(asyncpg.PostgresError) as caught:
                async with conn.transaction():
                    await conn.execute(
                        "select delivery.create_channel("
                        "jsonb_build_object('name', 'c', 'kind', 'slack', 'config', $1::text::jsonb))",
                        config,
                    )
            assert caught.value.sqlstate == "PU422"


async def test_a_channel_in_use_stays_and_names_its_users(api: Api) -> None:
    channel = await api.make("/api/v1/channels", WEBHOOK)
    channel_id = channel["channel_id"]
    route = await api.make("/api/v1/routes", {"name": "to hook", "channel_id": channel_id})
    steps = [{"after_minutes": 5, "channel_id": channel_id}]
    policy = await api.make("/api/v1/escalation-policies", {"name": "wake", "steps": steps})
    refused = await api.call("DELETE", f"/api/v1/channels/{channel_id}")
    assert refused.status_code == 409
    assert f"route {route['route_id']} (to hook)" in refused.json()["detail"]
    assert f"escalation policy {policy['policy_id']} (wake)" in refused.json()["detail"]
    await api.call("DELETE", f"/api/v1/routes/{route['route_id']}")
    await api.call("DELETE", f"/api/v1/escalation-policies/{policy['policy_id']}")
    assert (await api.call("DELETE", f"/api/v1/channels/{channel_id}")).status_code == 204


async def test_a_route_made_while_its_channel_goes_is_one_or_the_other(api: Api, conn: asyncpg.Connection) -> None:
    """No route refers to a deleted channel."""
    for turn in range(10):
        channel = await api.make("/api/v1/channels", {**WEBHOOK, "name": f"c{turn}"})
        body = {"name": "r", "channel_id": channel["channel_id"]}
        made, gone = await asyncio.gather(
            api.call("POST", "/api/v1/routes", json=body),
            api.call("DELETE", f"/api/v1/channels/{channel['channel_id']}"),
        )
        assert (made.status_code, gone.status_code) in ((201, 409), (422, 204))
    lost = await conn.fetchval(
        "select count(*) from notification_routes r left join notification_channels c using (tenant_id, channel_id)"
        " where c.channel_id is null"
    )
    assert lost == 0


async def test_names_of_channels_and_policies_are_given_once(api: Api) -> None:
    channel = await api.make("/api/v1/channels", WEBHOOK)
    again = await api.call("POST", "/api/v1/channels", json=WEBHOOK)
    assert (again.status_code, again.json()["detail"]) == (409, "A channel with this name exists.")
    policy = {"name": "wake", "steps": [{"after_minutes": 0, "channel_id": channel["channel_id"]}]}
    responses = await asyncio.gather(*(api.call("POST", "/api/v1/escalation-policies", json=policy) for _ in range(10)))
    assert sorted(response.status_code for response in responses) == [201] + [409] * 9


async def test_a_route_lives_its_life(api: Api) -> None:
    channel_id = (await api.make("/api/v1/channels", WEBHOOK))["channel_id"]
    rule_id = (await api.make("/api/v1/rules", RULE))["rule_id"]
    made = await api.make("/api/v1/routes", {"name": "r", "channel_id": channel_id, "rule_id": rule_id, "tag": "hot"})
    path = f"/api/v1/routes/{made['route_id']}"
    changed = (await api.call("PATCH", path, json={"rule_id": None, "min_severity": "error", "enabled": False})).json()
    assert (changed["rule_id"], changed["tag"], changed["min_severity"], changed["enabled"]) == (
        None,
        "hot",
        "error",
        False,
    )
    for wrong in ({"channel_id": 999}, {"rule_id": 999}, {"channel_id": None}, {"min_severity": "x"}, {"route_id": 1}):
        assert (await api.call("PATCH", path, json=wrong)).status_code == 422, wrong
    assert (await api.call("POST", "/api/v1/routes", json={"name": "r", "channel_id": 999})).status_code == 422
    assert (await api.call("DELETE", path)).status_code == 204
    assert (await api.call("DELETE", path)).status_code == 404


async def test_a_policy_lives_its_life(api: Api, conn: asyncpg.Connection) -> None:
    channel_id = (await api.make("/api/v1/channels", WEBHOOK))["channel_id"]
    steps = [{"after_minutes": 5.0, "channel_id": channel_id}, {"after_minutes": 15.5, "channel_id": channel_id}]
    made = await api.make("/api/v1/escalation-policies", {"name": "wake", "steps": steps})
    assert made["steps"] == steps
    path = f"/api/v1/escalation-policies/{made['policy_id']}"
    changed = (await api.call("PATCH", path, json={"steps": steps[1:]})).json()
    assert (changed["name"], changed["steps"]) == ("wake", steps[1:])
    assert (await api.call("PATCH", path, json={"name": "new"})).json()["steps"] == steps[1:]
    refusals: list[dict[str, Any]] = [
        {"steps": []},
        {"steps": steps[::-1]},
        {"steps": [steps[0]] * 21},
        {"steps": [{"after_minutes": -1, "channel_id": channel_id}]},
        {"steps": [{"after_minutes": 5, "channel_id": 999}]},
        {"steps": [{"after_minutes": 5}]},
        {"name": None},
    ]
    for wrong in refusals:
        response = await api.call("PATCH", path, json=wrong)
        assert response.status_code == 422, (wrong, response.text)
    rule = await api.make("/api/v1/rules", {**RULE, "policy_id": made["policy_id"]})
    refused = await api.call("DELETE", path)
    assert (refused.status_code, f"rule {rule['rule_id']} (too hot)" in refused.json()["detail"]) == (409, True)
    await api.call("PATCH", f"/api/v1/rules/{rule['rule_id']}", json={"policy_id": None})
    assert (await api.call("DELETE", path)).status_code == 204
    events = await conn.fetch(
        "select event_type, entity_id from audit_log where event_type like 'config.policy%' order by recorded_at"
    )
    policy = str(made["policy_id"])
    assert [tuple(row) for row in events] == [
        ("config.policy_created", policy),
        ("config.policy_step_created", f"{policy}/1"),
        ("config.policy_step_created", f"{policy}/2"),
        ("config.policy_step_deleted", f"{policy}/2"),
        ("config.policy_step_updated", f"{policy}/1"),
        ("config.policy_updated", policy),
        ("config.policy_deleted", policy),
        ("config.policy_step_deleted", f"{policy}/1"),
    ]
