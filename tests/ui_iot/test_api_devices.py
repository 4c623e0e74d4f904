"""Devices over HTTP: create, read, change, delete, and their tokens."""

import asyncio

import asyncpg
import pytest

from services.ui_iot.auth.stored_tokens import hash_token
from tests.support import seed
from tests.support.api_client import Api


async def test_a_device_is_created_read_changed_and_deleted(api: Api, conn: asyncpg.Connection) -> None:
    """Every step answers with the device as it is now."""
    made = await api.make("/api/v1/devices", {"device_id": "boiler-1", "tags": ["cellar"]})
    assert (made["name"], made["tags"], made["enabled"], made["has_token"]) == ("boiler-1", ["cellar"], True, True)
    shown = (await api.call("GET", "/api/v1/devices/boiler-1", role="viewer")).json()
    assert "token" not in shown
    assert shown == {name: value for name, value in made.items() if name != "token"}

    changed = await api.call("PATCH", "/api/v1/devices/boiler-1", json={"name": "Boiler", "tags": ["attic", "hot"]})
    assert changed.status_code == 200, changed.text
    assert (changed.json()["name"], changed.json()["tags"]) == ("Boiler", ["attic", "hot"])

    assert (await api.call("DELETE", "/api/v1/devices/boiler-1")).status_code == 204
    assert (await api.call("GET", "/api/v1/devices/boiler-1")).status_code == 404
    assert await conn.fetchval("select count(*) from devices") == 0


async def test_every_change_leaves_an_audit_event_with_actor_and_trace(api: Api, conn: asyncpg.Connection) -> None:
    """The event commits with the change and contains the actor and the difference."""
    trace_id = "ab" * 16
    await api.make("/api/v1/devices", {"device_id": "boiler-1"}, headers={"X-Trace-ID": trace_id})
    await api.call("PATCH", "/api/v1/devices/boiler-1", json={"name": "Boiler"})
    await api.call("PATCH", "/api/v1/devices/boiler-1", json={"name": "Boiler"})  # changes nothing
    await api.call("POST", "/api/v1/devices/boiler-1/token")
    await api.call("DELETE", "/api/v1/devices/boiler-1")
    rows = await conn.fetch(
        "select event_type, actor_type, actor_id, actor_name, source_service, trace_id, details::text"
        " from audit_log where category = 'config' order by recorded_at, event_id"
    )
    assert [row["event_type"] for row in rows] == [
        "config.device_created",
        "config.device_updated",
        "config.device_updated",
        "config.device_deleted",
    ]
    assert {(row["actor_type"], row["actor_id"], row["actor_name"], row["source_service"]) for row in rows} == {
        ("user", "admin@acme", "Alice", "ui_iot")
    }
    assert rows[0]["trace_id"] == trace_id
    assert '"name": ["boiler-1", "Boiler"]' in rows[1]["details"]
    assert '"changes": {"token_hash": ["[redacted]", "[redacted]"]}' in rows[2]["details"]


async def test_the_token_is_stored_as_a_hash_and_rotation_ends_the_old_one(api: Api, conn: asyncpg.Connection) -> None:
    """The process that rotated it rejects the old token at once, despite its cache."""
    first = (await api.make("/api/v1/devices", {"device_id": "boiler-1"}))["token"]
    stored = await conn.fetchval("select token_hash from devices")
    assert stored == hash_token(first)
    reading = {"device_id": "boiler-1", "metric": "temperature", "value": 20}

    async def post(token: str) -> int:
        headers = {"Authorization": f"Bearer {token}"}
        return (await api.client.post("/ingest/v1/readings", json=reading, headers=headers)).status_code

    assert await post(first) == 202
    second = (await api.call("POST", "/api/v1/devices/boiler-1/token")).json()["token"]
    assert second != first
    assert await post(first) == 401
    assert await post(second) == 202


async def test_ten_concurrent_creates_make_one_device(api: Api, conn: asyncpg.Connection) -> None:
    """One request creates the device, and nine get 409."""
    responses = await asyncio.gather(
        *(api.call("POST", "/api/v1/devices", json={"device_id": "boiler-1"}) for _ in range(10))
    )
    assert sorted(response.status_code for response in responses) == [201] + [409] * 9
    assert await conn.fetchval("select count(*) from devices") == 1
    assert await conn.fetchval("select count(*) from audit_log where event_type = 'config.device_created'") == 1


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"device_id": ""},
        {"device_id": "a b"},
        {"device_id": "a" * 129},
        {"device_id": "a", "name": ""},
        {"device_id": "a", "name": "two\nlines"},
        {"device_id": "a", "tags": ["x"] * 33},
        {"device_id": "a", "tags": ["no spaces"]},
        {"device_id": "a", "is_gateway": "yes"},
        {"device_id": "a", "token_hash": "00"},
        {"device_id": "a", "tenant_id": "other"},
        {"device_id": None},
        [],
        "text",
    ],
)
async def test_a_body_that_makes_no_device_is_refused(api: Api, conn: asyncpg.Connection, body: object) -> None:
    """The response is 422 with a pointer to the error, and nothing is stored."""
    response = await api.call("POST", "/api/v1/devices", json=body)
    assert response.status_code == 422, response.text
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["errors"][0]["pointer"].startswith("/body")
    assert await conn.fetchval("select count(*) from devices") == 0


async def test_disabling_or_deleting_a_device_closes_its_alerts(api: Api, conn: asyncpg.Connection) -> None:
    """Without new readings, the alert would stay open forever."""
    for device_id, method, body in (("a", "PATCH", {"enabled": False}), ("b", "DELETE", None)):
        await seed.device(conn, device_id)
        if device_id == "a":
            await seed.rule(conn)
        await seed.readings(conn, (0, 90.0, device_id))
        await conn.execute("select evaluator.evaluate(1000)")
        assert await conn.fetchval("select status from alerts where device_id = $1", device_id) == "open"
        response = await api.call(method, f"/api/v1/devices/{device_id}", json=body)
        assert response.is_success, response.text
        row = await conn.fetchrow("select status, close_reason from alerts where device_id = $1", device_id)
        assert row["status"] == "closed"
        assert row["close_reason"] in ("device disabled", "device deleted")
        assert await conn.fetchval("select count(*) from rule_state") == 0


async def test_leaving_a_group_closes_the_alerts_of_its_rules_only(api: Api, conn: asyncpg.Connection) -> None:
    """Removing a tag closes the alerts of that group's rules. Other alerts stay open."""
    await seed.device(conn, "a", tags=("hot", "cellar"))
    of_group = await seed.rule(conn, name="group", tag="hot")
    of_all = await seed.rule(conn, name="all")
    await seed.readings(conn, (0, 90.0, "a"))
    await conn.execute("select evaluator.evaluate(1000)")
    await api.call("PATCH", "/api/v1/devices/a", json={"tags": ["cellar", "new"]})
    rows = {row["rule_id"]: row["status"] for row in await conn.fetch("select rule_id, status from alerts")}
    assert rows == {of_group: "closed", of_all: "open"}
