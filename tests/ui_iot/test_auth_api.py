"""Authentication over HTTP, and the audit events of every attempt."""

import asyncio
import hashlib
import os
import re
import time
from collections.abc import AsyncIterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import orjson
import pytest
from starlette.responses import JSONResponse

from services.shared.audit_writer.event import KEY_FILE, Pseudonyms
from services.shared.metrics import AUTH_FAILURE_REASONS
from services.ui_iot.auth.device_tokens import DeviceTokens
from services.ui_iot.auth.failure_limit import FailureLimit
from services.ui_iot.auth.oidc import Granted, Issuer
from services.ui_iot.auth.refresh_gate import MOST_AT_ONCE, MOST_IN_HAND, RefreshGate
from services.ui_iot.auth.refusals import Refusal
from services.ui_iot.auth.user_tokens import UserTokens
from tests.support import seed
from tests.support.api_client import EC, RSA, Api, SigningKey, claims, ec_key, open_api, sign, token
from tests.support.auth_trail import events
from tests.support.http_app import served
from tests.support.identity_provider import Provider
from tests.support.plans import rows_touched
from tests.support.raw_http import RawConnection, status_of
from tests.support.wait import until

PATH = "/api/v1/devices"


async def device_token(conn: asyncpg.Connection, device_id: str = "boiler-1", **columns: Any) -> str:
    """Create a device and return its token."""
    await seed.device(conn, device_id)
    text, digest = DeviceTokens.make("acme")
    await conn.execute("update devices set token_hash = $2 where device_id = $1", device_id, digest)
    for name, value in columns.items():
        await conn.execute(f"update devices set {name} = $2 where device_id = $1", device_id, value)
    return text


def pseudonym(account: str) -> str:
    """Return the account's pseudonym in this test's trail."""
    key = Path(os.environ["PULSE_AUDIT_SPOOL_DIR"]).parent / KEY_FILE
    return Pseudonyms(key.read_bytes()).of(account)


def failures(api: Api) -> dict[str, float]:
    """pulse_auth_failures_total by reason."""
    registry = api.process.metrics.registry
    values = {
        reason: registry.get_sample_value("pulse_auth_failures_total", {"reason": reason})
        for reason in AUTH_FAILURE_REASONS
    }
    return {reason: value for reason, value in values.items() if value}


STALE = {"iat": 1000, "exp": 2000}


@pytest.mark.parametrize(
    ("header", "expected", "account"),
    [
        (None, "missing_token", None),
        ("", "missing_token", None),
        ("Bearer", "missing_token", None),
        ("Bearer ", "missing_token", None),
        ("Basic YWxpY2U6cGFzcw==", "missing_token", None),
        ("Bearer x", "invalid_token", None),
        ("Bearer " + token(**STALE), "expired", "alice"),
        ("Bearer " + token(role="root"), "invalid_claims", "alice"),
        ("Bearer " + sign(claims(), key=ec_key("other")), "unknown_key", "alice"),
        ("Bearer " + sign(claims(), key=SigningKey(EC.kid, "ES256", ec_key().pem)), "invalid_token", "alice"),
        ("Bearer pdt_acme_" + "A" * 43, "invalid_token", "device:acme"),
        ("Bearer pdt_acme_short", "invalid_token", None),
        ("Bearer pdt_" + "é" * 50, "invalid_token", None),
    ],
)
async def test_each_failure_has_its_reason_in_answer_audit_and_metric(
    api: Api, conn: asyncpg.Connection, header: str | None, expected: str, account: str | None
) -> None:
    headers = {"X-Trace-ID": "cd" * 16, **({} if header is None else {"Authorization": header.encode("latin-1")})}
    response = await api.client.get(PATH, headers=headers)  # type: ignore[arg-type]  # bytes are a header value too
    assert response.status_code == 401
    assert response.headers["www-authenticate"].startswith('Bearer realm="pulse"')
    body = response.json()
    assert (body["reason"], body["trace_id"], body["status"]) == (expected, "cd" * 16, 401)
    [event] = await events(conn, 1)
    assert event["event_type"] == "auth.login_failure"
    assert event["details"].pop("account", None) == (None if account is None else pseudonym(account))
    assert re.fullmatch("[0-9a-f]{16}", event["details"].pop("span_id"))
    assert event["details"] == {"reason": expected, "method": "GET", "path": PATH}
    assert (event["ip"], event["trace_id"], event["source_service"]) == ("203.0.113.9", "cd" * 16, "ui_iot")
    assert event["duration_ms"] > 0
    # Only a token with a valid signature identifies the caller.
    known = expected == "expired"
    assert (event["tenant_id"], event["actor_id"]) == (("acme", "alice") if known else ("system", None))
    assert failures(api) == {expected: 1}
    if header is not None and len(header) > 10:
        assert header.split()[-1][:20] not in orjson.dumps(event, default=str).decode()


async def test_success_is_audited_once_with_actor_and_address(api: Api, conn: asyncpg.Connection) -> None:
    assert (await api.call("GET", PATH, role="viewer")).status_code == 200
    [event] = await events(conn, 1)
    assert (event["event_type"], event["tenant_id"], event["ip"]) == ("auth.login_success", "acme", "203.0.113.9")
    assert (event["actor_type"], event["actor_id"], event["actor_name"]) == ("user", "viewer@acme", "Alice")
    kept = {"role": "viewer", "method": "GET", "path": PATH, "account": pseudonym("viewer@acme")}
    assert re.fullmatch("[0-9a-f]{16}", event["details"].pop("span_id"))
    assert event["details"] == kept
    assert failures(api) == {}


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "event_type"),
    [
        ("GET", "/api/v1/nowhere", None, 404, "auth.login_success"),
        ("PUT", PATH, None, 405, "auth.login_success"),
        ("POST", PATH, b"{not json", 400, "auth.login_success"),
        ("GET", f"{PATH}?limit=0", None, 422, "auth.login_success"),
        ("POST", PATH, b"x" * 70_000, 413, "auth.login_success"),
    ],
)
async def test_an_attempt_is_one_event_however_the_request_ends(
    api: Api, conn: asyncpg.Connection, method: str, path: str, body: bytes | None, status: int, event_type: str
) -> None:
    response = await api.call(method, path, content=body, headers={"Content-Type": "application/json"})
    assert response.status_code == status
    assert [event["event_type"] for event in await events(conn, 1)] == [event_type]


async def test_a_role_that_is_not_enough_is_one_forbidden_event(api: Api, conn: asyncpg.Connection) -> None:
    """The role is checked before the body is parsed or any error about it is reported."""
    response = await api.call("POST", PATH, role="viewer", content=b"{not json")
    assert (response.status_code, response.json()["reason"]) == (403, "forbidden")
    assert response.json()["detail"].startswith("This needs the role ")
    [event] = await events(conn, 1)
    assert (event["event_type"], event["actor_id"], event["tenant_id"]) == ("auth.forbidden", "viewer@acme", "acme")
    assert event["details"]["reason"] == "forbidden"
    assert failures(api) == {"forbidden": 1}


async def test_every_reason_is_there_from_the_start(api: Api) -> None:
    """A rate over a series that starts with its first failure would miss that failure."""
    text = (await api.client.get("/metrics")).text
    for reason in AUTH_FAILURE_REASONS:
        assert f'pulse_auth_failures_total{{reason="{reason}"}} 0.0' in text


async def test_open_paths_need_no_token_and_make_no_event(api: Api, conn: asyncpg.Connection) -> None:
    for path in ("/docs", "/openapi.json", "/metrics", "/livez", "/readyz", "/health", "/healthz"):
        assert (await api.client.get(path)).status_code == 200, path
    for path in ("/", "/docs/", "/metrics/", "/api", "/redoc", "/openapi.json/x", "//metrics", "/METRICS"):
        assert (await api.client.get(path)).status_code == 401, path
    assert len(await events(conn, 8)) == 8


async def test_a_device_token_opens_ingest_and_nothing_else(api: Api, conn: asyncpg.Connection) -> None:
    text = await device_token(conn)
    headers = {"Authorization": f"Bearer {text}"}
    reading = {"device_id": "boiler-1", "metric": "temperature", "value": 20}
    assert (await api.client.post("/ingest/v1/readings", json=reading, headers=headers)).status_code == 202
    refused = await api.client.get(PATH, headers=headers)
    assert (refused.status_code, refused.json()["reason"]) == (403, "forbidden")
    [refusal] = await events(conn, 1)
    assert (refusal["event_type"], refusal["tenant_id"], refusal["actor_id"]) == ("auth.forbidden", "acme", "boiler-1")

    async def let_in() -> asyncpg.Record | None:
        # Devices authenticate constantly, so people's logins are counted separately.
        return await conn.fetchrow("select l::text, l.* from audit_log l where event_type = 'device.authenticated'")

    row: Any = await until(let_in)
    assert (row["actor_type"], row["actor_id"], row["tenant_id"]) == ("device", "boiler-1", "acme")
    assert text.removeprefix("pdt_acme_") not in orjson.dumps(refusal, default=str).decode() + row["l"]


async def test_a_disabled_device_is_known_and_refused(api: Api, conn: asyncpg.Connection) -> None:
    headers = {"Authorization": f"Bearer {await device_token(conn, enabled=False)}"}
    response = await api.client.post("/ingest/v1/readings", json=[], headers=headers)
    assert (response.status_code, response.json()["reason"]) == (403, "forbidden")
    [event] = await events(conn, 1)
    assert (event["event_type"], event["tenant_id"], event["actor_id"]) == ("auth.forbidden", "acme", "boiler-1")


async def test_a_device_token_of_one_tenant_is_none_of_another(api: Api, conn: asyncpg.Connection) -> None:
    """The tenant in the token is part of the lookup and of the hash."""
    text = await device_token(conn)
    await seed.tenant(conn, "other")
    headers = {"Authorization": f"Bearer {text.replace('pdt_acme_', 'pdt_other_')}"}
    assert (await api.client.post("/ingest/v1/readings", json=[], headers=headers)).status_code == 401
    find = (
        "select array(select place from ingest.authenticate_devices(array['other', tenant_id], "
        "array[token_hash, token_hash])) from devices where token_hash is not null"
    )
    assert await conn.fetchval(find) == [2]


async def test_a_device_token_is_remembered_for_seconds_only(app_url: str, conn: asyncpg.Connection) -> None:
    text = await device_token(conn)
    headers = {"Authorization": f"Bearer {text}"}
    async with open_api(app_url, device_cache_seconds=0.0) as api:
        assert (await api.client.post("/ingest/v1/readings", json=[], headers=headers)).status_code == 202
        await conn.execute("update devices set token_hash = null")
        assert (await api.client.post("/ingest/v1/readings", json=[], headers=headers)).status_code == 401


async def test_the_session_cookie_reads_but_changes_only_from_our_own_pages(api: Api) -> None:
    """A browser sends the cookie with requests from any page."""
    cookie = {"Cookie": f"theme=dark; pulse_session={token()}"}
    assert (await api.client.get(PATH, headers=cookie)).status_code == 200
    device = {"device_id": "boiler-1"}
    for extra in (
        {},
        {"Origin": "https://evil.test"},
        {"Origin": "null"},
        {"Origin": "http://api.test.evil.test"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "none"},
        {"Sec-Fetch-Site": "cross-site", "Origin": "http://api.test"},
    ):
        response = await api.client.post(PATH, json=device, headers={**cookie, **extra})
        assert (response.status_code, response.json()["reason"]) == (403, "forbidden"), extra
    for number, extra in enumerate(({"Origin": "http://api.test"}, {"Sec-Fetch-Site": "same-origin"})):
        response = await api.client.post(PATH, json={"device_id": f"d{number}"}, headers={**cookie, **extra})
        assert response.status_code == 201, extra


async def test_two_tokens_are_none(api: Api) -> None:
    """A proxy and Pulse could pick different tokens."""
    one, two = token(), token(role="viewer")
    twice = [("Authorization", f"Bearer {one}"), ("Authorization", f"Bearer {two}")]
    assert (await api.client.get(PATH, headers=twice)).json()["reason"] == "invalid_token"
    tossed = {"Cookie": f"pulse_session={one}; pulse_session={two}"}
    assert (await api.client.get(PATH, headers=tossed)).json()["reason"] == "invalid_token"
    both = {"Authorization": f"Bearer {one}", "Cookie": "pulse_session=rubbish"}
    assert (await api.client.get(PATH, headers=both)).status_code == 200


async def test_an_address_that_fails_too_often_is_turned_away(app_url: str, conn: asyncpg.Connection) -> None:
    """The limit uses the address that the trusted proxy saw. A valid token is accepted all the same."""
    await seed.tenant(conn)
    async with open_api(
        app_url, audit_read_rows_per_window=0, auth_rate_limit_per_minute=5, trusted_proxies="203.0.113.0/24"
    ) as api:

        async def status(client: str, text: str) -> int:
            headers = {"Authorization": f"Bearer {text}", "X-Forwarded-For": f"6.6.6.6, {client}"}
            response = await api.client.get(PATH, headers=headers)
            if response.status_code == 429:
                assert response.json()["reason"] == "rate_limited"
                assert 1 <= int(response.headers["retry-after"]) <= 12
            return response.status_code

        good, fresh = token(sub="good"), token(sub="fresh")
        assert await status("198.51.100.1", good) == 200
        assert [await status("198.51.100.1", "rubbish") for _ in range(7)] == [401] * 5 + [429] * 2
        assert [await status("198.51.100.1", text) for text in (good, fresh)] == [200, 200]
        assert await status("198.51.100.2", "rubbish") == 401
        found = await events(conn, 11)
        assert {event["ip"] for event in found} == {"198.51.100.1", "198.51.100.2"}
        causes = [event["details"]["cause"] for event in found if event["event_type"] == "auth.rate_limited"]
        assert causes == ["invalid_token"] * 2
        assert failures(api) == {"invalid_token": 6, "rate_limited": 2}


async def test_stale_devices_behind_one_address_lock_out_no_valid_token(app_url: str, conn: asyncpg.Connection) -> None:
    """Five devices have stale tokens. New users, devices and sessions behind the same NAT are accepted."""
    fresh = [await device_token(conn, f"fresh-{number}") for number in range(5)]
    stale = [f"pdt_acme_{'A' * 42}{number}" for number in range(5)]
    async with open_api(app_url, auth_rate_limit_per_minute=3, device_cache_seconds=0.0) as api:

        async def send(text: str) -> int:
            headers = {"Authorization": f"Bearer {text}"}
            return (await api.client.post("/ingest/v1/readings", json=[], headers=headers)).status_code

        async def read(text: str) -> int:
            return (await api.client.get(PATH, headers={"Authorization": f"Bearer {text}"})).status_code

        assert [await send(text) for text in stale * 2] == [401] * 3 + [429] * 7
        # Good tokens compete with stale ones for the deferred lookups.
        sent = await asyncio.gather(*(send(text) for text in stale + fresh))
        assert sent == [429] * 5 + [202] * 5
        assert [await read(token(sub=f"user-{number}")) for number in range(5)] == [200] * 5
        # An expired token is authentic, so the answer says so and the browser refreshes the session.
        assert await read(token(iat=1000, exp=2000, sub="lunch")) == 401
        # A proven account has its own limit.
        assert [await read(token(iat=1000, exp=2000, sub="clock")) for _ in range(4)] == [401] * 3 + [429]
        assert await read(token(iat=1000, exp=2000, sub="other")) == 401
        # A token that becomes invalid is refused at once.
        await conn.execute("update devices set token_hash = null where device_id = 'fresh-1'")
        assert [await send(fresh[1]), await send(fresh[2])] == [429, 202]


async def test_tries_on_one_account_from_many_addresses_are_limited(app_url: str, conn: asyncpg.Connection) -> None:
    """The account's valid tokens are accepted, and an expired one is reported as expired."""
    await seed.tenant(conn)
    good_device = await device_token(conn)
    async with open_api(app_url, auth_rate_limit_per_minute=3, trusted_proxies="203.0.113.0/24") as api:
        hosts = iter(range(1, 250))

        async def status(text: str) -> int:
            headers = {"Authorization": f"Bearer {text}", "X-Forwarded-For": f"198.51.100.{next(hosts)}"}
            return (await api.client.post("/ingest/v1/readings", json=[], headers=headers)).status_code

        def forged(sub: str) -> str:
            return sign(claims(sub=sub), key=SigningKey(EC.kid, "ES256", ec_key().pem))

        assert [await status(forged("victim")) for _ in range(5)] == [401] * 3 + [429] * 2
        assert await status(forged("other")) == 401
        assert await status(token(sub="victim", role="operator")) == 202
        assert await status(token(sub="victim", iat=1000, exp=2000)) == 401
        assert [await status(DeviceTokens.make("acme")[0]) for _ in range(5)] == [401] * 3 + [429] * 2
        assert await status(good_device) == 202


async def test_a_flood_of_unknown_device_tokens_takes_few_queries(app_url: str, conn: asyncpg.Connection) -> None:
    """The number of queries grows with time, not with the number of tokens. A repeated token costs none."""
    good = await device_token(conn)
    async with open_api(app_url, auth_rate_limit_per_minute=10, device_cache_seconds=5.0) as api:
        devices = api.backend.authenticator.devices
        queries: list[int] = []
        fetch = devices._lookup._fetch  # noqa: SLF001  # the one place where the database is asked

        async def counted(questions: Any) -> Any:
            queries.append(len(questions))
            return await fetch(questions)

        devices._lookup._fetch = counted  # type: ignore[method-assign]  # noqa: SLF001

        async def send(text: str) -> int:
            headers = {"Authorization": f"Bearer {text}"}
            return (await api.client.post("/ingest/v1/readings", json=[], headers=headers)).status_code

        texts = [DeviceTokens.make("acme")[0] for _ in range(400)]
        answers = await asyncio.gather(*(send(text) for text in texts), send(good))
        assert sorted(answers) == [202] + [401] * 10 + [429] * 390
        assert sum(queries) == 401
        assert len(queries) <= 40
        before = len(queries)
        assert {await send(text) for text in texts[:50]} == {429}
        assert len(queries) == before
        # Valid devices are cached separately, so a flood does not evict them.
        assert await send(good) == 202
        assert len(queries) == before


async def test_a_lookup_reads_the_devices_it_asks_for_and_no_others(conn: asyncpg.Connection) -> None:
    """The lookup uses the index for any list length and any planner statistics."""
    await seed.tenant(conn)
    await conn.execute(
        "insert into devices (tenant_id, device_id, name, token_hash)"
        " select 'acme', 'd' || n, 'd', sha256(n::text::bytea) from generate_series(1, 5000) n"
    )
    for analyzed in (False, True):
        if analyzed:
            await conn.execute("analyze devices")
        query = (
            "select * from ingest.authenticate_devices(array_fill('acme'::text, array[1000]),"
            " array(select sha256((n * 10)::text::bytea) from generate_series(1, 1000) n))"
        )
        assert len(await conn.fetch(query)) == 500
        assert (await rows_touched(conn, query))["devices"] <= 500


async def test_a_disabled_device_that_keeps_sending_costs_no_query_and_works_once_enabled(
    app_url: str, conn: asyncpg.Connection
) -> None:
    text = await device_token(conn, enabled=False)
    headers = {"Authorization": f"Bearer {text}"}
    async with open_api(app_url, device_cache_seconds=60.0) as api:
        assert (await api.client.post("/ingest/v1/readings", json=[], headers=headers)).status_code == 403
        await conn.execute("update devices set token_hash = null")
        assert (await api.client.post("/ingest/v1/readings", json=[], headers=headers)).status_code == 403
        digest = hashlib.sha256(text.encode()).digest()
        await conn.execute("update devices set token_hash = $1", digest)
        assert (await api.call("PATCH", f"{PATH}/boiler-1", json={"enabled": True})).status_code == 200
        assert (await api.client.post("/ingest/v1/readings", json=[], headers=headers)).status_code == 202


async def test_tries_beyond_the_limit_are_still_tries(app_url: str, conn: asyncpg.Connection) -> None:
    """Noise from one address must not hide an attack on an account, because each try was checked."""
    forged = sign(claims(sub="victim"), key=SigningKey(EC.kid, "ES256", ec_key().pem))
    async with open_api(app_url, auth_rate_limit_per_minute=1, audit_flood_rows_per_window=5) as api:
        assert (await api.client.get(PATH)).status_code == 401
        for _ in range(30):
            response = await api.client.get(PATH, headers={"Authorization": f"Bearer {forged}"})
            assert response.status_code == 429
    found = await conn.fetch("select kind, subject from audit.detect_attacks()")
    assert [(row["kind"], row["subject"]) for row in found] == [("brute_force", pseudonym("victim"))]


async def test_without_an_issuer_devices_work_and_users_get_503(app_url: str, conn: asyncpg.Connection) -> None:
    text = await device_token(conn)
    async with open_api(app_url, with_users=False) as api:
        response = await api.client.get(PATH, headers={"Authorization": f"Bearer {token()}"})
        assert (response.status_code, response.json()["reason"]) == (503, "auth_unavailable")
        assert int(response.headers["retry-after"]) > 0
        headers = {"Authorization": f"Bearer {text}"}
        assert (await api.client.post("/ingest/v1/readings", json=[], headers=headers)).status_code == 202


async def test_a_database_that_is_away_makes_device_tokens_unavailable_not_wrong(
    app_url: str, conn: asyncpg.Connection
) -> None:
    """A device that gets 401 may discard its token."""
    text = await device_token(conn)
    async with open_api(app_url) as api:
        assert api.process.pool is not None
        await api.process.pool.close()
        response = await api.client.post("/ingest/v1/readings", json=[], headers={"Authorization": f"Bearer {text}"})
        assert (response.status_code, response.json()["reason"]) == (503, "auth_unavailable")
        users = await api.client.get(PATH, headers={"Authorization": f"Bearer {token()}"})
        assert (users.status_code, users.json()["title"]) == (503, "Service Unavailable")
        assert "retry-after" in users.headers


async def test_keys_that_rotate_are_found_while_requests_run(api: Api) -> None:
    rotated = ec_key("ec-2")
    api.keys.document = {"keys": [RSA.public(), rotated.public()]}
    users = api.backend.authenticator.users
    assert isinstance(users, UserTokens)
    users._jwks._tried_at = float("-inf")  # noqa: SLF001  # the pause between two looks has passed
    headers = {"Authorization": f"Bearer {sign(claims(), key=rotated)}"}
    responses = await asyncio.gather(*(api.client.get(PATH, headers=headers) for _ in range(20)))
    assert {response.status_code for response in responses} == {200}
    assert api.keys.asked == 2
    old = await api.client.get(PATH, headers={"Authorization": f"Bearer {token()}"})
    assert old.json()["reason"] == "unknown_key"


@pytest.fixture
async def refreshing(app_url: str, conn: asyncpg.Connection) -> AsyncIterator[tuple[Api, Provider]]:
    await seed.tenant(conn)
    provider = Provider()
    async with httpx.AsyncClient(transport=httpx.ASGITransport(provider.app)) as client:
        issuer = Issuer(client, provider.url, client_id="pulse")
        async with open_api(app_url, issuer=issuer, auth_rate_limit_per_minute=3) as api:
            yield api, provider


async def test_a_session_is_refreshed_at_the_issuer(
    refreshing: tuple[Api, Provider], conn: asyncpg.Connection, caplog: pytest.LogCaptureFixture
) -> None:
    """The issuer's answer is returned unchanged. The event names the new token's user. No token is logged."""
    caplog.set_level("DEBUG")
    api, provider = refreshing
    answer = {"access_token": token(), "token_type": "Bearer", "expires_in": 300, "refresh_token": "r2-secret"}
    provider.token_answer = JSONResponse(answer)
    response = await api.client.post("/auth/refresh", json={"refresh_token": "r1-secret"})
    assert (response.status_code, response.json()) == (200, answer)
    assert response.headers["cache-control"] == "no-store"
    assert provider.forms[0]["refresh_token"] == "r1-secret"
    [event] = await events(conn, 1)
    assert (event["event_type"], event["tenant_id"], event["actor_id"]) == ("auth.token_refresh", "acme", "alice")
    recorded = orjson.dumps(event, default=str).decode() + caplog.text
    for secret in ("r1-secret", "r2-secret", answer["access_token"]):
        assert str(secret) not in recorded


async def test_a_refused_refresh_is_a_failure_of_the_address(
    refreshing: tuple[Api, Provider], conn: asyncpg.Connection
) -> None:
    """A refresh token that the issuer refused is not sent again."""
    api, provider = refreshing
    provider.token_answer = JSONResponse({"error": "invalid_grant"}, 400)
    responses = [await api.client.post("/auth/refresh", json={"refresh_token": "old"}) for _ in range(4)]
    assert [response.status_code for response in responses] == [401, 401, 401, 429]
    assert len(provider.forms) == 1
    assert [event["details"]["reason"] for event in await events(conn, 4)] == ["invalid_token"] * 3 + ["rate_limited"]
    # A neighbor's session is still refreshed.
    provider.token_answer = JSONResponse({"access_token": token(), "token_type": "Bearer"})
    assert (await api.client.post("/auth/refresh", json={"refresh_token": "good"})).status_code == 200


async def test_a_refresh_token_goes_to_the_issuer_that_is_named_and_to_no_other(
    app_url: str, conn: asyncpg.Connection
) -> None:
    """With several issuers, a guess would send one provider's session to another."""
    await seed.tenant(conn)
    first, second = Provider("http://one.test"), Provider("http://two.test")
    async with (
        httpx.AsyncClient(transport=httpx.ASGITransport(first.app)) as to_first,
        httpx.AsyncClient(transport=httpx.ASGITransport(second.app)) as to_second,
    ):
        issuers = {
            first.url: Issuer(to_first, first.url, client_id="pulse"),
            second.url: Issuer(to_second, second.url, client_id="pulse"),
        }
        async with open_api(app_url, issuers=issuers) as api:
            for body in ({}, {"issuer": "http://three.test"}, {"issuer": ""}):
                answer = await api.client.post("/auth/refresh", json={"refresh_token": "r1", **body})
                assert answer.status_code == 422, answer.text
            answer = await api.client.post("/auth/refresh", json={"refresh_token": "r2", "issuer": second.url})
            assert answer.status_code == 200
    assert first.forms == []
    assert [form["refresh_token"] for form in second.forms] == ["r2"]


async def test_refreshes_of_one_address_reach_the_issuer_a_few_at_a_time() -> None:
    """No request of a burst has failed yet. Further ones wait, and beyond a bound they are refused at once."""
    entered: list[str] = []
    release = asyncio.Event()

    class Slow:
        async def refresh(self, refresh_token: str) -> Granted | Refusal:
            entered.append(refresh_token)
            await release.wait()
            return Granted({"access_token": refresh_token})

    gate = RefreshGate(FailureLimit(0), pause_seconds=0.0)
    here, elsewhere = ip_address("2001:db8::1"), ip_address("198.51.100.1")
    asked = [asyncio.create_task(gate.exchange(Slow(), f"r{number}", here)) for number in range(40)]
    await until(lambda: len(entered) == MOST_AT_ONCE + 1)
    other = asyncio.create_task(gate.exchange(Slow(), "other", elsewhere))
    await until(lambda: "other" in entered)
    assert len(entered) == MOST_AT_ONCE + 2
    release.set()
    results = await asyncio.gather(*asked, other)
    turned_away = [result.reason for result in results if isinstance(result, Refusal)]
    assert turned_away == ["rate_limited"] * (40 - MOST_IN_HAND)
    assert not gate._in_hand  # noqa: SLF001  # nothing is kept of an address that has nothing in hand


async def test_a_refresh_request_that_is_none_repeats_nothing_of_it(refreshing: tuple[Api, Provider]) -> None:
    api, _ = refreshing
    response = await api.client.post("/auth/refresh", json={"refresh_token": ["s3cret"], "other": "s3cret"})
    assert response.status_code == 422
    assert "s3cret" not in response.text


async def test_refresh_without_an_issuer_is_unavailable(api: Api, conn: asyncpg.Connection) -> None:
    response = await api.client.post("/auth/refresh", json={"refresh_token": "r1"})
    assert (response.status_code, response.json()["reason"]) == (503, "auth_unavailable")
    assert [event["details"]["reason"] for event in await events(conn, 1)] == ["auth_unavailable"]


async def test_an_expired_token_is_refused_although_it_was_good_before(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    headers = {"Authorization": f"Bearer {token()}"}
    assert (await api.client.get(PATH, headers=headers)).status_code == 200
    users = api.backend.authenticator.users
    assert isinstance(users, UserTokens)
    monkeypatch.setattr(users._verifier, "_clock", lambda: time.time() + 601)  # noqa: SLF001  # time passes
    assert (await api.client.get(PATH, headers=headers)).json()["reason"] == "expired"


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "template"),
    [
        ("GET", f"{PATH}/boiler-1", None, 401, f"{PATH}/{{device_id}}"),
        ("GET", PATH, None, 401, PATH),
        ("PUT", f"{PATH}/boiler-1", None, 401, f"{PATH}/{{device_id}}"),
        ("POST", "/ingest/v1/readings", None, 401, "/ingest/v1/readings"),
        ("POST", "/auth/refresh", b"x" * 70_000, 413, "/auth/refresh"),
        ("GET", f"{PATH}/a/b", None, 401, "__unmatched__"),
        ("GET", f"{PATH}/", None, 401, "__unmatched__"),
        ("GET", "/s3cret", None, 401, "__unmatched__"),
    ],
)
async def test_a_request_refused_before_its_route_is_measured_as_of_that_route(
    api: Api, caplog: pytest.LogCaptureFixture, method: str, path: str, body: bytes | None, status: int, template: str
) -> None:
    """The metric shows which part of the API receives invalid tokens."""
    caplog.set_level("INFO", logger="services.ui_iot.middleware.http_meter")
    assert (await api.client.request(method, path, content=body)).status_code == status
    labels = {"method": method, "path_template": template, "status_code": str(status)}
    if method == "PUT":  # no route has this method, so clients could create arbitrary series
        labels |= {"method": "_OTHER", "path_template": "__unmatched__"}
    name = "pulse_http_request_duration_seconds_count"
    assert api.process.metrics.registry.get_sample_value(name, labels) == 1
    assert [record.__dict__["path_template"] for record in caplog.records if "path_template" in record.__dict__] == [
        template
    ]


async def test_a_caller_makes_no_series_of_methods_that_an_address_does_not_have(api: Api) -> None:
    """Otherwise a viewer could inflate /metrics to 2 MB."""
    for method in ("PUT", "DELETE", "TRACE", "OPTIONS"):
        assert (await api.call(method, PATH, role="viewer")).status_code == 405
    labels = {"method": "_OTHER", "path_template": PATH, "status_code": "405"}
    name = "pulse_http_request_duration_seconds_count"
    assert api.process.metrics.registry.get_sample_value(name, labels) == 4


async def test_an_address_that_waits_is_measured_as_of_the_route_it_asks_for(app_url: str) -> None:
    async with open_api(app_url, auth_rate_limit_per_minute=1) as api:
        statuses = [(await api.client.get(f"{PATH}/x")).status_code for _ in range(2)]
        assert statuses == [401, 429]
        labels = {"method": "GET", "path_template": f"{PATH}/{{device_id}}", "status_code": "429"}
        name = "pulse_http_request_duration_seconds_count"
        assert api.process.metrics.registry.get_sample_value(name, labels) == 1


async def test_refuses_a_websocket_handshake_with_403(api: Api) -> None:
    """The handshake is refused with a valid token and on an open path, and counted as the client saw it."""
    handshake = ("Upgrade: websocket", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Version: 13")
    authorization = f"Authorization: Bearer {token(role='admin', tenant_id='acme')}"
    async with served(api.app) as port:
        for path in (PATH, "/docs"):
            async with RawConnection(port) as connection:
                connection.request("GET", path, "Connection: Upgrade", *handshake, authorization)
                assert status_of(await connection.read_all()) == 403
            labels = {"method": "GET", "path_template": path, "status_code": "403"}
            name = "pulse_http_request_duration_seconds_count"
            assert api.process.metrics.registry.get_sample_value(name, labels) == 1
        async with RawConnection(port) as connection:
            connection.request("GET", PATH, "Connection: Upgrade", "Upgrade: h2c, WebSocket")
            assert status_of(await connection.read_all()) == 403
