"""Errors over HTTP have one form and the trace id, and reveal neither internals nor input."""

import json
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.ui_iot.backend import Backend
from tests.support import seed
from tests.support.api_client import Api, open_api, token
from tests.support.problem import assert_problem


@pytest.fixture
async def api(app_url: str, conn: asyncpg.Connection) -> AsyncIterator[Api]:
    await seed.device(conn)
    async with open_api(app_url) as opened:
        yield opened


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/api/v1/nowhere", 404),
        ("GET", "/api/v1/devices/nobody", 404),
        ("GET", "/api/v1/devices/%00", 422),
        ("GET", "/api/v1/rules/0", 422),
        ("GET", "/api/v1/rules/x", 422),
        ("GET", f"/api/v1/rules/{2**63}", 422),
        ("GET", "/api/v1/rules/999", 404),
        ("GET", "/api/v1/devices?limit=1000", 422),
        ("GET", "/api/v1/devices?unknown=1", 422),
        ("PUT", "/api/v1/devices", 405),
        ("TRACE", "/api/v1/devices", 405),
        ("POST", "/api/v1/devices", 422),
    ],
)
async def test_every_error_is_a_problem(api: Api, method: str, path: str, status: int) -> None:
    body = assert_problem(await api.call(method, path), status)
    assert body["detail"]


@pytest.mark.parametrize(("host", "status"), [("api.test", 404), ("evil.test", 421)])
async def test_no_address_sends_the_caller_elsewhere(api: Api, host: str, status: int) -> None:
    """A redirect would use the Host header that the client sent."""
    response = await api.call("GET", "/api/v1/devices/", headers={"Host": host})
    assert_problem(response, status)
    assert "location" not in response.headers


@pytest.mark.parametrize(
    "body",
    [b"{", b"not json", b'{"name": }', b"\xff\xfe", b"[" * 30, b"[" * 2000, b'{"a":' + b"9" * 5000 + b"}"],
    ids=range(7),
)
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/api/v1/devices"),
        ("PATCH", "/api/v1/channels/1"),
        ("POST", "/auth/refresh"),
        ("POST", "/ingest/v1/readings"),
    ],
)
async def test_a_body_that_is_not_json_is_400_wherever_it_is_sent(
    api: Api, method: str, path: str, body: bytes
) -> None:
    response = await api.call(method, path, content=body, headers={"Content-Type": "application/json"})
    if path == "/ingest/v1/readings" and body.startswith(b'{"a":9'):
        # A number of any length is JSON. Members that are no reading are refused one by one.
        assert (response.status_code, response.json()["accepted"]) == (202, 0)
        return
    if path == "/ingest/v1/readings" and len(body) == 2000:
        assert assert_problem(response, 422)["detail"] == "Arrays and objects may be nested 32 deep."
        return
    assert assert_problem(response, 400)["detail"] == "The body is not JSON that can be read."


@pytest.mark.parametrize("path", ["/api/v1/devices", "/ingest/v1/readings", "/auth/refresh"])
async def test_a_packed_body_is_415(api: Api, path: str) -> None:
    for coding in ("gzip", "br", "identity, gzip"):
        response = await api.call("POST", path, json={}, headers={"Content-Encoding": coding})
        assert_problem(response, 415)
        assert response.headers["accept-encoding"] == "identity"
    plain = await api.call("POST", path, json={}, headers={"Content-Encoding": "Identity"})
    assert plain.status_code != 415


async def test_a_405_names_what_is_allowed(api: Api) -> None:
    response = await api.call("PUT", "/api/v1/devices/boiler-1")
    assert response.status_code == 405
    assert "GET" in response.headers["allow"]


async def test_what_was_sent_does_not_come_back(api: Api) -> None:
    """A body may hold a secret in the wrong place."""
    response = await api.call(
        "POST", "/api/v1/channels", json={"kind": "webhook", "name": {"s3cret": "s3cret"}, "config": "s3cret"}
    )
    body = assert_problem(response, 422)
    assert "s3cret" not in response.text
    assert {error["pointer"] for error in body["errors"]} == {"/body/webhook/name", "/body/webhook/config"}


async def test_a_fault_of_ours_is_500_without_its_inside(
    api: Api, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(*_args: Any, **_rest: Any) -> Any:
        raise KeyError("inner detail")

    monkeypatch.setattr(Backend, "page", fail)
    response = await api.call("GET", "/api/v1/devices", headers={"X-Trace-ID": "ab" * 16})
    body = assert_problem(response, 500)
    assert body["trace_id"] == "ab" * 16
    assert "inner detail" not in response.text
    assert "inner detail" in caplog.text


async def test_the_database_going_away_is_503_and_its_return_is_noticed(app_url: str, conn: asyncpg.Connection) -> None:
    """Killed connections are replaced without a restart."""
    await seed.device(conn)
    async with open_api(app_url) as api:
        assert (await api.call("GET", "/api/v1/devices")).status_code == 200
        await conn.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity where usename = 'pulse_app'"
            " and datname = current_database()"
        )
        statuses = [(await api.call("GET", "/api/v1/devices")).status_code for _ in range(5)]
        assert set(statuses) <= {200, 503}
        assert statuses[-1] == 200
        assert api.process.pool is not None
        pool, api.process.pool = api.process.pool, None
        response = await api.call("GET", "/api/v1/devices")
        assert_problem(response, 503)
        assert int(response.headers["retry-after"]) > 0
        assert (await api.client.get("/readyz")).status_code == 503
        assert (await api.client.get("/livez")).status_code == 200
        api.process.pool = pool


async def test_a_statement_that_is_given_up_is_503(app_url: str, conn: asyncpg.Connection) -> None:
    """A locked row fails one request, not the service."""
    await seed.device(conn)
    async with open_api(app_url, command_timeout_seconds=0.3) as api, conn.transaction():
        await conn.execute("select 1 from devices for update")
        assert_problem(await api.call("PATCH", "/api/v1/devices/boiler-1", json={"name": "x"}), 503)
        assert (await api.call("GET", "/api/v1/devices/boiler-1")).status_code == 200


@given(
    path=st.text(max_size=30),
    query=st.text(max_size=30),
    headers=st.dictionaries(
        st.sampled_from(["cookie", "origin", "x-forwarded-for", "content-type", "accept", "host", "content-length"]),
        st.binary(max_size=40).map(lambda value: value.translate(None, b"\r\n")),
        max_size=4,
    ),
    body=st.binary(max_size=60),
    method=st.sampled_from(["GET", "POST", "PATCH", "DELETE", "OPTIONS"]),
)
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
async def test_no_request_makes_a_fault_of_ours(
    api: Api, path: str, query: str, headers: dict[str, bytes], body: bytes, method: str
) -> None:
    """With a valid token, any request gets 2xx or 4xx with a trace id."""
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": f"/api/v1/{path}",
        "raw_path": b"/",
        "root_path": "",
        "query_string": query.encode("utf-8", "replace"),
        "headers": [
            (b"authorization", f"Bearer {token()}".encode()),
            *((name.encode(), value) for name, value in headers.items()),
        ],
        "client": ("203.0.113.9", 1),
        "server": ("api.test", 80),
    }
    await api.client._transport.app(scope, receive, send)  # type: ignore[attr-defined]  # noqa: SLF001  # past httpx's checks
    assert 200 <= sent[0]["status"] < 500
    assert len(dict(sent[0]["headers"])[b"x-trace-id"]) == 32


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
MEMBERS = st.sampled_from(
    [
        *("device_id", "name", "tags", "metric", "operator", "threshold", "for_seconds", "severity", "tag"),
        *(
            "policy_id",
            "kind",
            "config",
            "channel_id",
            "min_severity",
            "rule_id",
            "steps",
            "enabled",
            "until",
            "reason",
        ),
    ]
)


@given(
    path=st.sampled_from(
        [
            *("devices", "rules", "channels", "routes", "escalation-policies", "devices/boiler-1", "rules/1"),
            *("alerts/1/close", "alerts/1/silence", "channels/1"),
        ]
    ),
    body=st.dictionaries(MEMBERS, JSON, max_size=6) | JSON,
    method=st.sampled_from(["POST", "PATCH"]),
)
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
async def test_no_body_makes_a_fault_of_ours(api: Api, path: str, body: Any, method: str) -> None:
    text = json.dumps(body).encode("utf-8", "replace")
    response = await api.call(method, f"/api/v1/{path}", content=text, headers={"Content-Type": "application/json"})
    assert response.status_code < 500, (path, text, response.text)
