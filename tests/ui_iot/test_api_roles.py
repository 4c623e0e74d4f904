"""Permissions: every route with every role, and every route with another tenant's objects."""

from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import orjson
import pytest

from services.ui_iot.app import create_api
from services.ui_iot.auth.device_tokens import DeviceTokens
from services.ui_iot.auth.guard import GuardedRoute
from services.ui_iot.middleware.auth import OPEN_PATHS
from tests.support import seed
from tests.support.api_client import Api, open_api

READERS = frozenset(("viewer", "operator", "admin", "auditor"))
OPERATORS = frozenset(("operator", "admin"))
ADMIN = frozenset(("admin",))
ROLES = (*sorted(READERS), "device")

# This table is the reference. A missing route fails the test below.
MATRIX: dict[tuple[str, str], frozenset[str]] = {
    ("POST", "/ingest/v1/readings"): frozenset(("operator", "admin", "device")),
    ("GET", "/api/v1/alerts"): READERS,
    ("GET", "/api/v1/alerts/{alert_id}"): READERS,
    ("POST", "/api/v1/alerts/{alert_id}/acknowledge"): OPERATORS,
    ("POST", "/api/v1/alerts/{alert_id}/close"): OPERATORS,
    ("POST", "/api/v1/alerts/{alert_id}/silence"): OPERATORS,
    ("POST", "/api/v1/devices/{device_id}/token"): ADMIN,
    ("GET", "/api/v1/deliveries"): READERS,
    ("GET", "/api/v1/deliveries/{job_id}"): READERS,
    ("POST", "/api/v1/deliveries/{job_id}/redrive"): ADMIN,
    ("POST", "/api/v1/channels/{channel_id}/resume"): ADMIN,
    ("GET", "/api/v1/audit/events"): frozenset(("admin", "auditor")),
    ("GET", "/api/v1/audit/tail"): frozenset(("admin", "auditor")),
    ("GET", "/api/v1/traces/{trace_id}"): READERS,
    ("GET", "/api/v1/api-keys"): ADMIN,
    ("POST", "/api/v1/api-keys"): ADMIN,
    ("GET", "/api/v1/api-keys/{key_id}"): ADMIN,
    ("POST", "/api/v1/api-keys/{key_id}/revoke"): ADMIN,
    ("GET", "/api/v1/revocations"): ADMIN,
    ("POST", "/api/v1/revocations"): ADMIN,
    ("GET", "/api/v1/revocations/{revocation_id}"): ADMIN,
    ("DELETE", "/api/v1/revocations/{revocation_id}"): ADMIN,
}
for resource, key in (
    ("devices", "device_id"),
    ("rules", "rule_id"),
    ("channels", "channel_id"),
    ("routes", "route_id"),
    ("escalation-policies", "policy_id"),
):
    MATRIX |= {
        ("GET", f"/api/v1/{resource}"): READERS,
        ("POST", f"/api/v1/{resource}"): ADMIN,
        ("GET", f"/api/v1/{resource}/{{{key}}}"): READERS,
        ("PATCH", f"/api/v1/{resource}/{{{key}}}"): ADMIN,
        ("DELETE", f"/api/v1/{resource}/{{{key}}}"): ADMIN,
    }


@pytest.fixture
async def api(app_url: str, conn: asyncpg.Connection) -> AsyncIterator[Api]:
    await seed.device(conn)
    async with open_api(app_url) as opened:
        yield opened


def operations(api: Api) -> dict[tuple[str, str], dict[str, Any]]:
    """Return every operation of the OpenAPI document."""
    paths = create_api(api.backend).openapi()["paths"]
    return {(method.upper(), path): what for path, methods in paths.items() for method, what in methods.items()}


async def test_the_matrix_names_every_route(api: Api) -> None:
    assert set(operations(api)) - set(MATRIX) == {("POST", "/auth/refresh")}
    assert set(MATRIX) <= set(operations(api))


async def test_every_route_is_guarded_or_open_on_purpose(api: Api) -> None:
    """The test fails for a new route without roles."""
    from fastapi.routing import APIRoute  # noqa: PLC0415

    from services.ui_iot.app import ROUTERS  # noqa: PLC0415

    bare = [
        route.path
        for router in ROUTERS
        for route in router.routes
        if isinstance(route, APIRoute) and not isinstance(route, GuardedRoute)
    ]
    assert bare == ["/auth/refresh"]
    assert "/auth/refresh" in OPEN_PATHS
    with pytest.raises(KeyError):
        GuardedRoute("/unguarded", lambda: None)


async def test_every_route_opens_for_its_roles_and_for_no_other(api: Api, conn: asyncpg.Connection) -> None:
    """The OpenAPI document lists the same roles as the guard."""
    device, digest = DeviceTokens.make("acme")
    await conn.execute("update devices set token_hash = $1", digest)
    documented = operations(api)
    for (method, template), allowed in MATRIX.items():
        path = template.replace("{device_id}", "nobody").replace("{trace_id}", "f" * 32)
        path = path.replace("{", "").replace("}", "") if "_id}" not in path else _numbered(path)
        if template == "/api/v1/audit/tail":
            path += "?start=nowhere"  # an answer that is good never ends
        for role in ROLES:
            if role == "device":
                headers = {"Authorization": f"Bearer {device}"}
                response = await api.client.request(method, path, headers=headers, content=b"{")
            else:
                response = await api.call(method, path, role=role, content=b"{")
            assert (response.status_code == 403) == (role not in allowed), (method, template, role, response.text)
            assert response.status_code < 500, (method, template, role, response.text)
        assert set(documented[method, template]["x-pulse-roles"]) == set(allowed), (method, template)


def _numbered(path: str) -> str:
    start, end = path.index("{"), path.index("}")
    return path[:start] + "999999" + path[end + 1 :]


async def test_nothing_of_another_tenant_can_be_read_or_changed(api: Api, conn: asyncpg.Connection) -> None:
    """Objects of another tenant look absent and stay unchanged."""
    await seed.tenant(conn, "other")
    await seed.device(conn, "theirs", tenant_id="other")
    channel = await seed.channel(conn, tenant_id="other")
    ids: dict[str, Any] = {
        "devices": "theirs",
        "rules": await seed.rule(conn, tenant_id="other", name="theirs"),
        "channels": channel,
        "routes": await seed.route(conn, channel, tenant_id="other", name="theirs"),
        "escalation-policies": await conn.fetchval(
            "insert into escalation_policies (tenant_id, name) values ('other', 'theirs') returning policy_id"
        ),
    }
    tables = ("devices", "alert_rules", "notification_channels", "notification_routes", "escalation_policies")
    before = [await conn.fetch(f"select t::text from {table} t where tenant_id = 'other'") for table in tables]
    for resource, key in ids.items():
        path = f"/api/v1/{resource}/{key}"
        assert (await api.call("GET", path)).status_code == 404, path
        assert (await api.call("PATCH", path, json={"name": "mine"})).status_code == 404, path
        assert (await api.call("DELETE", path)).status_code == 404, path
        assert "theirs" not in (await api.call("GET", f"/api/v1/{resource}")).text
    assert (await api.call("POST", "/api/v1/devices/theirs/token")).status_code == 404
    # Other objects cannot refer to it.
    own = await seed.channel(conn, "mine")
    for resource, body in (
        ("routes", {"name": "r", "channel_id": ids["channels"]}),
        ("routes", {"name": "r", "channel_id": own, "rule_id": ids["rules"]}),
        ("escalation-policies", {"name": "p", "steps": [{"after_minutes": 1, "channel_id": ids["channels"]}]}),
        (
            "rules",
            {"name": "r", "metric": "m", "operator": ">", "threshold": 1, "policy_id": ids["escalation-policies"]},
        ),
        ("rules", {"name": "r", "metric": "m", "operator": ">", "threshold": 1, "device_id": "theirs"}),
    ):
        assert (await api.call("POST", f"/api/v1/{resource}", json=body)).status_code == 422, (resource, body)
    after = [await conn.fetch(f"select t::text from {table} t where tenant_id = 'other'") for table in tables]
    assert after == before


async def test_a_tenant_that_does_not_exist_owns_nothing_and_can_make_nothing(api: Api) -> None:
    """The issuer may name tenants that do not exist here."""
    assert (await api.call("GET", "/api/v1/devices", tenant="ghost")).json() == {"items": [], "next_cursor": None}
    response = await api.call("POST", "/api/v1/devices", tenant="ghost", json={"device_id": "a"})
    assert (response.status_code, response.json()["detail"]) == (403, "The tenant of the token does not exist.")


async def test_without_a_tenant_the_views_show_nothing(conn: asyncpg.Connection, app_url: str) -> None:
    """A missing setting must hide all rows instead of showing all."""
    await seed.device(conn)
    await seed.rule(conn)
    connection = await asyncpg.connect(app_url)
    try:
        views = await connection.fetch(
            "select c.relname from pg_class c where c.relnamespace = 'api'::regnamespace and c.relkind = 'v'"
            " and c.relname <> 'queues'"
        )
        assert len(views) >= 10
        for row in views:
            for setting in (None, "", "nobody"):
                async with connection.transaction():
                    if setting is not None:
                        await connection.execute("select set_config('pulse.tenant_id', $1, true)", setting)
                    assert await connection.fetchval(f"select count(*) from api.{row['relname']}") == 0, row["relname"]
    finally:
        await connection.close()


async def test_the_document_is_complete(api: Api) -> None:
    """Every operation has a summary, examples, problems, security and a unique id."""
    document = create_api(api.backend).openapi()
    schemas = document["components"]["schemas"]
    assert set(document["components"]["securitySchemes"]) == {"userToken", "sessionCookie", "apiKey", "deviceToken"}
    ids = [what["operationId"] for what in operations(api).values()]
    assert sorted(ids) == sorted(set(ids))
    assert "list_alerts" in ids
    for where, what in operations(api).items():
        assert what["summary"], where
        assert what["description"], where
        assert what["tags"], where
        if where != ("POST", "/auth/refresh"):
            assert what["security"], where
        for status in ("401", "403", "422", "429", "500", "503"):
            [content] = what["responses"][status]["content"].items()
            assert content[0] == "application/problem+json", where
            assert content[1]["schema"] == {"$ref": "#/components/schemas/Problem"}, where
            assert content[1]["example"]["status"] == int(status), where
        if "{" in where[1]:
            assert "404" in what["responses"], where
        good = next(answer for status, answer in what["responses"].items() if status.startswith("2"))
        if "204" not in what["responses"]:
            [content] = good["content"].values()
            assert _has_example(content, schemas), where
        if "requestBody" in what:
            assert _has_example(what["requestBody"]["content"]["application/json"], schemas), where
            assert {"400", "413", "415", "422"} <= what["responses"].keys(), where
        for parameter in what.get("parameters", ()):
            assert parameter.get("description"), (where, parameter["name"])
    for name, schema in schemas.items():
        assert "title" in schema, name
    for where in (("POST", "/api/v1/channels"), ("PATCH", "/api/v1/channels/{channel_id}")):
        assert operations(api)[where]["requestBody"]["content"]["application/json"]["examples"], where
    orjson.dumps(document)


def _has_example(content: dict[str, Any], schemas: dict[str, Any]) -> bool:
    if "example" in content or "examples" in content:
        return True
    schema = content["schema"]
    options = schema.get("oneOf") or schema.get("anyOf") or [schema]
    return all("examples" in schemas[option["$ref"].rpartition("/")[2]] for option in options)


async def test_the_examples_of_the_document_are_true(api: Api, conn: asyncpg.Connection) -> None:
    """The examples work when copied from the page."""
    document = create_api(api.backend).openapi()
    examples = {
        name: schema["examples"][0]
        for name, schema in document["components"]["schemas"].items()
        if "examples" in schema
    }
    channels = {}
    for name in ("NewWebhook", "NewSlack", "NewTeams", "NewPagerDuty"):
        channels[name] = (await api.make("/api/v1/channels", examples[name]))["channel_id"]
    await api.call("PATCH", f"/api/v1/channels/{channels['NewWebhook']}", json=examples["ChannelChanges"])
    rule = await api.make("/api/v1/rules", examples["NewRule"])
    first, second = channels["NewWebhook"], channels["NewSlack"]
    steps = [{**step, "channel_id": [first, second][n]} for n, step in enumerate(examples["NewPolicy"]["steps"])]
    await api.make("/api/v1/escalation-policies", {**examples["NewPolicy"], "steps": steps})
    route = await api.make("/api/v1/routes", {**examples["NewRoute"], "channel_id": first})
    for path, name in (
        (f"/api/v1/rules/{rule['rule_id']}", "RuleChanges"),
        (f"/api/v1/routes/{route['route_id']}", "RouteChanges"),
        ("/api/v1/devices/boiler-1", "DeviceChanges"),
    ):
        response = await api.call("PATCH", path, json=examples[name])
        assert response.status_code == 200, (name, response.text)
    await api.call("DELETE", "/api/v1/devices/boiler-1")
    await api.make("/api/v1/devices", examples["NewDevice"])
    body = operations(api)["POST", "/ingest/v1/readings"]["requestBody"]["content"]["application/json"]["example"]
    response = await api.call("POST", "/ingest/v1/readings", json=body)
    assert response.status_code == 202
