"""Audit events of configuration changes: the client's address and the deleted values."""

from typing import Any

import asyncpg
import orjson
import pytest

from services.shared.db import Actor, Pool, act
from tests.support import seed
from tests.support.api_client import Api

ADDRESS = "203.0.113.9"


async def deletion(conn: asyncpg.Connection, event_type: str) -> dict[str, Any]:
    """Return the details of the only event of this type."""
    [row] = await conn.fetch("select details::text as d from audit.config_changes where event_type = $1", event_type)
    details: dict[str, Any] = orjson.loads(row["d"])
    return details


def without_times(row: dict[str, Any]) -> dict[str, Any]:
    """Return the row without times, which the API formats differently from the trail."""
    return {name: value for name, value in row.items() if name not in {"created_at", "updated_at"}}


async def test_each_change_and_batch_of_readings_records_its_client_address(api: Api, conn: asyncpg.Connection) -> None:
    await api.make("/api/v1/devices", {"device_id": "boiler-1"})
    rule = await api.make("/api/v1/rules", {"name": "hot", "metric": "heat", "operator": ">", "threshold": 80})
    reading = {"device_id": "boiler-1", "metric": "heat", "value": 20}
    assert (await api.call("POST", "/ingest/v1/readings", json=reading)).status_code == 202
    assert (await api.call("PATCH", f"/api/v1/rules/{rule['rule_id']}", json={"threshold": 90})).status_code == 200
    assert (await api.call("DELETE", "/api/v1/devices/boiler-1")).status_code == 204
    rows = await conn.fetch("select event_type, host(ip_address) as ip from audit.config_changes order by timestamp")
    assert [tuple(row) for row in rows] == [
        (event_type, ADDRESS)
        for event_type in (
            *("config.device_created", "config.rule_created", "config.rule_updated", "config.device_deleted"),
        )
    ]
    accepted = "select host(ip_address) from audit_log where event_type = 'device.readings_accepted'"
    assert await conn.fetchval(accepted) == ADDRESS


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, None),
        ("", None),
        ("testclient", None),
        ("1.2.3.4.5", None),
        ("198.51.100.7", "198.51.100.7"),
        ("2001:db8::1", "2001:db8::1"),
    ],
)
async def test_an_address_that_is_none_costs_no_transaction(
    app_pool: Pool, conn: asyncpg.Connection, text: str | None, expected: str | None
) -> None:
    await seed.tenant(conn)
    actor = Actor("user", "ann", "Ann")
    async with act(app_pool, tenant_id="acme", actor=actor, service="ui_iot", ip_address=text) as connection:
        body = {"device_id": "boiler-1", "token_hash": "00" * 32}
        await connection.fetchval("select ingest.create_device($1)", body)
    assert await conn.fetchval("select host(ip_address) from audit.config_changes") == expected
    # The setting ends with its transaction.
    async with app_pool.acquire() as connection:
        assert not await connection.fetchval("select current_setting('pulse.ip_address', true)")


async def test_a_deleted_device_is_recorded_without_its_token(api: Api, conn: asyncpg.Connection) -> None:
    device = await api.make("/api/v1/devices", {"device_id": "boiler-1", "tags": ["attic"], "is_gateway": True})
    digest = await conn.fetchval("select encode(token_hash, 'hex') from devices")
    await api.call("DELETE", "/api/v1/devices/boiler-1")
    old = (await deletion(conn, "config.device_deleted"))["old"]
    columns = ("device_id", "name", "tags", "is_gateway", "enabled", "created_at", "updated_at")
    shown = {name: device[name] for name in columns}
    kept = {"token_hash": "[redacted]", "first_reading_id": 1}
    assert without_times(old) == {**without_times(shown), **kept}
    assert not await conn.fetchval("select count(*) from audit_log l where l::text like '%' || $1 || '%'", digest)


async def test_a_deleted_route_is_recorded(api: Api, conn: asyncpg.Connection) -> None:
    channel_id = await seed.channel(conn)
    body = {"name": "r", "channel_id": channel_id, "min_severity": "error", "tag": "attic"}
    route = await api.make("/api/v1/routes", body)
    await api.call("DELETE", f"/api/v1/routes/{route['route_id']}")
    assert without_times((await deletion(conn, "config.route_deleted"))["old"]) == without_times(route)


async def test_a_deleted_rule_is_recorded(api: Api, conn: asyncpg.Connection) -> None:
    body = {"name": "hot", "metric": "heat", "operator": ">", "threshold": 80.0, "for_seconds": 60, "tag": "attic"}
    rule = await api.make("/api/v1/rules", body)
    await api.call("DELETE", f"/api/v1/rules/{rule['rule_id']}")
    assert without_times((await deletion(conn, "config.rule_deleted"))["old"]) == without_times(rule)


async def test_a_deleted_channel_is_recorded_without_its_secrets(api: Api, conn: asyncpg.Connection) -> None:
    secret = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz"
    config = {"url": "https://hooks.example.com/pulse?key=hush", "secret": secret}
    channel = await api.make("/api/v1/channels", {"name": "c", "kind": "webhook", "config": config})
    await api.call("DELETE", f"/api/v1/channels/{channel['channel_id']}")
    observed = ("paused_until", "paused_because", "last_success_at", "last_error_at", "last_error")
    assert without_times((await deletion(conn, "config.channel_deleted"))["old"]) == {
        **{name: value for name, value in without_times(channel).items() if name not in observed},
        "config": "[redacted]",
        "shown_url": channel["config"]["url"],
    }


async def test_a_deleted_policy_is_recorded_with_its_steps(api: Api, conn: asyncpg.Connection) -> None:
    steps = [{"after_minutes": 5, "channel_id": await seed.channel(conn)}]
    policy = await api.make("/api/v1/escalation-policies", {"name": "p", "steps": steps})
    await api.call("DELETE", f"/api/v1/escalation-policies/{policy['policy_id']}")
    assert (await deletion(conn, "config.policy_deleted"))["old"]["name"] == "p"
    step = (await deletion(conn, "config.policy_step_deleted"))["old"]
    assert step == {"policy_id": policy["policy_id"], "step_number": 1, **steps[0]}
