"""API keys of machines: scopes, expiry and audit events."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import orjson
import pytest

from services.ui_iot.app import ROUTERS
from services.ui_iot.auth.api_keys import SCOPES, ApiKeys
from services.ui_iot.auth.principal import Principal
from services.ui_iot.auth.refusals import Refusal
from services.ui_iot.backend import pool_of
from tests.support import seed
from tests.support.api_client import Api, open_api
from tests.support.auth_trail import events
from tests.support.plans import rows_touched
from tests.support.problem import assert_problem
from tests.support.wait import until

KEYS = "/api/v1/api-keys"
DEVICES = "/api/v1/devices"
NEW: dict[str, Any] = {"name": "Stock system", "role": "viewer", "scopes": ["devices:read"]}


@pytest.fixture
async def api(app_url: str, conn: asyncpg.Connection) -> AsyncIterator[Api]:
    await seed.device(conn)
    async with open_api(app_url) as opened:
        yield opened


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


async def changed(conn: asyncpg.Connection) -> list[tuple[str, str, str]]:
    """Events about keys: type, key, actor."""
    rows = await conn.fetch(
        "select event_type, entity_id, actor_id from audit_log where event_type like '%api_key%'"
        " order by timestamp, event_id"
    )
    return [tuple(row) for row in rows]


async def test_a_key_is_shown_once_hashed_at_rest_and_opens_its_scopes(api: Api, conn: asyncpg.Connection) -> None:
    response = await api.call("POST", KEYS, json={**NEW, "expires_in_days": 30})
    assert (response.status_code, response.headers["cache-control"]) == (201, "no-store")
    made = response.json()
    key = made.pop("key")
    assert key.startswith("pulse_key_acme_")
    assert len(key) == len("pulse_key_acme_") + 43
    row: Any = await conn.fetchrow("select k::text as whole, k.* from api_keys k")
    assert row["key_hash"] == hashlib.sha256(key.encode()).digest()
    assert row["expires_at"] - row["created_at"] == timedelta(days=30)
    trail = await conn.fetch("select l::text from audit_log l")
    secret = key.removeprefix("pulse_key_acme_")
    assert secret not in row["whole"] + "".join(each[0] for each in trail)
    assert row["key_hash"].hex() not in "".join(each[0] for each in trail)
    shown = (await api.call("GET", f"{KEYS}/{made['key_id']}")).json()
    assert shown == made
    assert (shown["created_by"], shown["scopes"]) == ("admin@acme", ["devices:read"])

    assert (await api.client.get(DEVICES, headers=bearer(key))).status_code == 200
    assert (await api.client.head(DEVICES, headers=bearer(key))).status_code == 200
    for method, path, said in (
        ("GET", "/api/v1/alerts", "alerts:read"),
        ("POST", DEVICES, "admin"),
        ("GET", KEYS, "admin"),
        ("POST", "/ingest/v1/readings", "admin"),
    ):
        refused = await api.client.request(method, path, headers=bearer(key), json={})
        assert said in assert_problem(refused, 403)["detail"], path
    [used, *_] = [
        row
        for row in await conn.fetch("select * from audit_log where category = 'auth' order by timestamp")
        if row["actor_type"] == "service"
    ]
    assert (used["actor_id"], used["actor_name"], used["tenant_id"]) == ("api-key:1", "Stock system", "acme")
    assert await changed(conn) == [("config.api_key_created", "1", "admin@acme")]


async def test_no_key_manages_keys_or_revocations_and_no_scope_is_dead(api: Api) -> None:
    """A stolen key must not survive its revocation by creating another key."""
    made = await api.make(KEYS, {**NEW, "role": "admin", "scopes": list(SCOPES)})
    for method, path in (("POST", KEYS), ("GET", KEYS), ("POST", f"{KEYS}/1/revoke"), ("POST", "/api/v1/revocations")):
        refused = await api.client.request(method, path, headers=bearer(made["key"]), json=NEW)
        assert assert_problem(refused, 403)["detail"] == "API keys cannot be used here."
    for path in ("alerts", "rules", "escalation-policies", "audit/events", "deliveries"):
        assert (await api.client.get(f"/api/v1/{path}", headers=bearer(made["key"]))).status_code == 200
    rule = await api.client.post(f"{DEVICES}", headers=bearer(made["key"]), json={"device_id": "d2"})
    assert rule.status_code == 201
    reading = {"device_id": "d2", "metric": "t", "value": 1}
    assert (await api.client.post("/ingest/v1/readings", headers=bearer(made["key"]), json=reading)).status_code == 202
    routes: list[Any] = [route for router in ROUTERS for route in router.routes]
    known = {
        f"{str(route.tags[0]).replace(' ', '-')}:{'read' if method in ('GET', 'HEAD') else 'write'}"
        for route in routes
        for method in route.methods
    }
    closed = {f"{part}:{act}" for part in ("api-keys", "revocations") for act in ("read", "write")} | {"auth:write"}
    assert known - closed == set(SCOPES)


async def test_a_revoked_or_expired_key_is_refused_as_what_it_is(api: Api, conn: asyncpg.Connection) -> None:
    one, two = [await api.make(KEYS, {**NEW, "name": name}) for name in ("one", "two")]
    assert (await api.client.get(DEVICES, headers=bearer(one["key"]))).status_code == 200
    tag = (await api.call("GET", f"{KEYS}/1")).headers["etag"]
    revoked = await api.call("POST", f"{KEYS}/1/revoke", headers={"If-Match": tag})
    assert (revoked.status_code, revoked.json()["revoked_by"]) == (200, "admin@acme")
    again = await api.call("POST", f"{KEYS}/1/revoke")
    assert again.json() == revoked.json()
    await conn.execute(
        "update api_keys set created_at = created_at - interval '90 days', expires_at = now() - interval '1 second'"
        " where key_id = 2"
    )
    for made, reason in ((one, "revoked"), (two, "expired")):
        refused = await api.client.get(DEVICES, headers=bearer(made["key"]))
        assert assert_problem(refused, 401)["reason"] == reason
        assert 'error="invalid_token"' in refused.headers["www-authenticate"]
        row: Any = await conn.fetchrow(
            "select tenant_id, actor_type, actor_id, actor_name from audit_log"
            " where event_type = 'auth.login_failure' and details ->> 'reason' = $1",
            reason,
        )
        assert tuple(row) == ("acme", "service", f"api-key:{made['key_id']}", made["name"])
    assert ("auth.api_key_revoked", "1", "admin@acme") in await changed(conn)
    assert [what for what, *_ in await changed(conn)].count("auth.api_key_revoked") == 1
    assert api.process.metrics.registry.get_sample_value("pulse_auth_failures_total", {"reason": "revoked"}) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"scopes": []},
        {"scopes": ["devices:read", "devices:*"]},
        {"scopes": ["api-keys:write"]},
        {"scopes": ["audit:write"]},
        {"scopes": None},
        {"role": "device"},
        {"role": "root"},
        {"name": ""},
        {"name": "a\x1b[2Jb"},
        {"expires_in_days": 0},
        {"expires_in_days": 367},
        {"expires_in_days": "30"},
        {"expires_in_days": 1.5},
        {"key_hash": "00" * 32},
    ],
)
async def test_a_key_without_bounds_cannot_be_made(api: Api, change: dict[str, Any]) -> None:
    assert_problem(await api.call("POST", KEYS, json={**NEW, **change}), 422)
    assert (await api.call("GET", KEYS)).json()["items"] == []


async def test_wrong_keys_are_refused_and_other_tenants_see_none(api: Api, conn: asyncpg.Connection) -> None:
    made = await api.make(KEYS, NEW)
    await seed.tenant(conn, "other")
    secret = made["key"].removeprefix("pulse_key_acme_")
    for wrong in (
        f"pulse_key_other_{secret}",
        f"pulse_key_acme_{secret[:-1]}",
        f"pulse_key_acme_{'A' * 43}",
        f"pdt_acme_{secret}",
        "pulse_key_",
        "pulse_key_acme_",
        f"pulse_key_ACME_{secret}",
        f"pulse_key_acme_{secret}\x00",
        made["key"].upper(),
    ):
        refused = await api.client.get(DEVICES, headers={b"Authorization": f"Bearer {wrong}".encode()})
        assert refused.status_code == 401, wrong
    find = (
        "select array(select place from ingest.authenticate_api_keys(array['other', tenant_id], "
        "array[key_hash, key_hash])) from api_keys"
    )
    assert await conn.fetchval(find) == [2]
    assert (await api.call("GET", KEYS, tenant="other")).json()["items"] == []
    assert_problem(await api.call("POST", f"{KEYS}/1/revoke", tenant="other"), 404)
    assert (await api.client.get(DEVICES, headers=bearer(made["key"]))).status_code == 200


async def test_the_last_use_is_written_once_a_minute(api: Api, conn: asyncpg.Connection) -> None:
    made = await api.make(KEYS, NEW)
    query = "select last_used_at, xmin::text from ingest.api_key_uses"
    assert (await api.client.get(DEVICES, headers=bearer(made["key"]))).status_code == 200
    first: Any = await until(lambda: conn.fetchrow(query))
    for _ in range(3):
        await conn.execute("select ingest.note_api_key_use('acme', 1)")
    assert await conn.fetchrow(query) == first
    await conn.execute("update ingest.api_key_uses set last_used_at = last_used_at - interval '61 seconds'")
    before: Any = await conn.fetchrow(query)
    api.backend.authenticator.keys.forget("acme", "api-key:1")
    assert (await api.client.get(DEVICES, headers=bearer(made["key"]))).status_code == 200

    async def later() -> bool:
        row: Any = await conn.fetchrow(query)
        return bool(row["last_used_at"] > before["last_used_at"])

    await until(later)
    assert (await api.call("GET", f"{KEYS}/1")).json()["last_used_at"] is not None
    # Using a key is not recorded as a change.
    assert [what for what, *_ in await changed(conn)] == ["config.api_key_created"]


async def test_a_key_revoked_elsewhere_is_remembered_for_seconds_only(api: Api, conn: asyncpg.Connection) -> None:
    """The test sets the cache's clock. Another process revoked the key in the database."""
    now = [0.0]
    keys = ApiKeys(lambda: pool_of(api.process), remember_seconds=60, clock=lambda: now[0])
    key, digest = ApiKeys.make("acme")
    await conn.execute(
        "insert into api_keys (tenant_id, name, role, scopes, key_hash, expires_at)"
        " values ('acme', 'k', 'viewer', '{devices:read}', $1, now() + interval '1 day')",
        digest,
    )
    found = await keys.check(key)
    assert isinstance(found, Principal)
    assert found.scopes == frozenset({"devices:read"})
    await conn.execute("update api_keys set revoked_at = now()")
    assert keys.remembered(key) == found
    now[0] = 4.1
    assert keys.remembered(key) is None
    refused = await keys.check(key)
    assert isinstance(refused, Refusal)
    assert refused.reason == "revoked"


async def test_ended_keys_are_known_for_90_days_and_then_removed(api: Api, conn: asyncpg.Connection) -> None:
    await api.make(KEYS, {**NEW, "name": "old"})
    await api.make(KEYS, {**NEW, "name": "new"})
    await conn.execute(
        "update api_keys set created_at = now() - interval '1 year', expires_at = now() - interval '1 day' * $1"
        " where key_id = $2",
        89,
        1,
    )
    prune = "select what, removed from ops.prune(365, 30, 10)"
    assert await conn.fetch(prune) == []
    await conn.execute("update api_keys set expires_at = expires_at - interval '2 days' where key_id = 1")
    assert [tuple(row) for row in await conn.fetch(prune)] == [("api_keys", 1)]
    assert [item["name"] for item in (await api.call("GET", KEYS)).json()["items"]] == ["new"]
    assert [what for what, *_ in await changed(conn)][-1] == "config.api_key_deleted"
    details = await conn.fetchval("select details::text from audit_log where event_type = 'system.pruned'")
    assert orjson.loads(details)["removed"]["api_keys"] == 1


async def test_a_lookup_reads_one_row_a_key(conn: asyncpg.Connection) -> None:
    await seed.tenant(conn)
    await conn.execute(
        "insert into api_keys (tenant_id, name, role, scopes, key_hash, expires_at)"
        " select 'acme', n::text, 'viewer', '{a}', sha256(n::text::bytea), now() + interval '1 day'"
        " from generate_series(1, 5000) n"
    )
    query = (
        "select * from ingest.authenticate_api_keys(array_fill('acme'::text, array[1000]),"
        " array(select sha256((n * 10)::text::bytea) from generate_series(1, 1000) n))"
    )
    assert len(await conn.fetch(query)) == 500
    assert (await rows_touched(conn, query))["api_keys"] <= 500


async def test_the_number_of_keys_in_use_is_bounded(api: Api, conn: asyncpg.Connection) -> None:
    await conn.execute(
        "insert into api_keys (tenant_id, name, role, scopes, key_hash, expires_at)"
        " select 'acme', n::text, 'viewer', '{a}', sha256(n::text::bytea), $1 from generate_series(1, 1000) n",
        datetime.now(UTC) + timedelta(days=1),
    )
    assert "1000 keys" in assert_problem(await api.call("POST", KEYS, json=NEW), 409)["detail"]
    await conn.execute("update api_keys set revoked_at = now() where key_id = 5")
    at_once = await asyncio.gather(*(api.call("POST", KEYS, json=NEW) for _ in range(4)))
    assert sorted(each.status_code for each in at_once) == [201, 409, 409, 409]


async def test_a_lost_answer_shows_the_key_again_by_its_idempotency_key(api: Api, conn: asyncpg.Connection) -> None:
    headers = {"Idempotency-Key": "7f0c"}
    first = await api.call("POST", KEYS, json=NEW, headers=headers)
    again = await api.call("POST", KEYS, json=NEW, headers=headers)
    assert first.json() == again.json()
    assert await conn.fetchval("select count(*) from api_keys") == 1
    assert len(await events(conn, 2)) == 2
