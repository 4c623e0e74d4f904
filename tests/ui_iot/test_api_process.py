"""The HTTP API as a separate process: start, log, stop."""

import asyncio
import socket
import subprocess
import sys
from typing import Any

import asyncpg
import httpx
import pytest
from starlette.responses import JSONResponse

from services.shared import tracing
from services.shared.server import serve
from services.ui_iot.auth.device_tokens import DeviceTokens
from tests.support import seed
from tests.support.api_client import token
from tests.support.identity_provider import Provider
from tests.support.migrator import ROOT
from tests.support.processes import Running, free_port, ready_service, service
from tests.support.raw_http import RawConnection, status_of
from tests.support.wait import until

TRACE = "0af7651916cd43dd8448eb211c80319c"


def lines_of(running: Running, trace_id: str) -> list[dict[str, Any]]:
    """Return the log lines of a trace."""
    return [line for line in running.lines if line.get("trace_id") == trace_id]


@pytest.mark.slow
async def test_a_request_leaves_its_trace_in_log_metric_row_and_audit(
    app_url: str, conn: asyncpg.Connection, issuer: dict[str, str]
) -> None:
    await seed.device(conn)
    async with ready_service("services.ui_iot", app_url, **issuer) as running:
        async with httpx.AsyncClient(base_url=running.url) as client:
            response = await client.post(
                "/ingest/v1/readings",
                json={"device_id": "boiler-1", "metric": "temperature", "value": 95},
                headers={"Authorization": f"Bearer {token(role='operator')}", "X-Trace-ID": TRACE},
            )
            assert (response.status_code, response.headers["x-trace-id"]) == (202, TRACE)
            for name, header in (("expired", token(iat=1000, exp=2000)), ("invalid_token", "rubbish")):
                refused = await client.get("/api/v1/alerts", headers={"Authorization": f"Bearer {header}"})
                assert (refused.status_code, refused.json()["reason"]) == (401, name)
            metrics = (await client.get("/metrics")).text
        assert await running.stop() == 0
    template = 'method="POST",path_template="/ingest/v1/readings",status_code="202"'
    assert f'pulse_http_request_duration_seconds_bucket{{le="+Inf",{template}}} 1.0' in metrics
    assert 'pulse_db_pool_size{service="ui_iot"}' in metrics
    assert [line["message"] for line in lines_of(running, TRACE)] == [
        "readings received",
        "POST /ingest/v1/readings 202",
    ]
    assert all("not_json" not in line for line in running.lines)
    assert await conn.fetchval("select trace_id from telemetry") == TRACE
    # Everything is stored before the process ends.
    rows = await conn.fetch(
        "select event_type, details->>'reason' reason, host(ip_address) ip from audit_log"
        " where category = 'auth' order by timestamp"
    )
    assert [tuple(row) for row in rows] == [
        ("auth.login_success", None, "127.0.0.1"),
        ("auth.login_failure", "expired", "127.0.0.1"),
        ("auth.login_failure", "invalid_token", "127.0.0.1"),
    ]


@pytest.mark.slow
async def test_without_an_issuer_it_says_so_once_and_devices_are_let_in(app_url: str, conn: asyncpg.Connection) -> None:
    await seed.device(conn)
    text, digest = DeviceTokens.make("acme")
    await conn.execute("update devices set token_hash = $1", digest)
    async with ready_service("services.ui_iot", app_url) as running:
        user = await running.get("/api/v1/devices", authorization=f"Bearer {token()}")
        assert (user.status_code, user.json()["reason"]) == (503, "auth_unavailable")
        async with httpx.AsyncClient(base_url=running.url) as client:
            response = await client.post("/ingest/v1/readings", json=[], headers={"Authorization": f"Bearer {text}"})
            assert response.status_code == 202
        assert await running.stop() == 0
    said = [line for line in running.lines if "no issuer of user tokens" in line.get("message", "")]
    assert len(said) == 1


async def test_tokens_up_to_the_largest_setting_reach_the_check(app_url: str, conn: asyncpg.Connection) -> None:
    """The token arrives in small pieces beside other headers. One byte more is too large, not malformed."""
    await seed.device(conn)
    stop, port = asyncio.Event(), free_port()
    provider = Provider(f"http://127.0.0.1:{port}")
    serving = asyncio.create_task(serve(provider.app, host="127.0.0.1", port=port, stop=stop))
    try:
        async with ready_service(
            "services.ui_iot", app_url, oidc_issuer=provider.url, oidc_max_token_bytes="32768"
        ) as running:

            async def ask(padding: int) -> tuple[int | None, bytes]:
                text = token(iss=provider.url, padding="x" * padding)
                async with RawConnection(running.port) as connection:
                    lines = ["GET /api/v1/devices HTTP/1.1", "Host: localhost", "Connection: close"]
                    lines += [f"X-Other: {'y' * 8000}", f"Authorization: Bearer {text}", "", ""]
                    request = "\r\n".join(lines).encode()
                    for start in range(0, len(request), 3000):
                        connection.write(request[start : start + 3000])
                        await asyncio.sleep(0)
                    answer = await connection.read_all()
                    return status_of(answer), answer

            assert (await ask(24_000))[0] == 200
            status, answer = await ask(25_000)
            assert status == 401
            assert b"token_too_large" in answer
            assert b"may have 32768 bytes" in answer
            assert 'pulse_auth_failures_total{reason="token_too_large"} 1.0' in (await running.get("/metrics")).text
    finally:
        stop.set()
        await serving


@pytest.mark.slow
async def test_an_issuer_is_found_by_discovery_and_asked_for_sessions(app_url: str, conn: asyncpg.Connection) -> None:
    """Over real sockets: keys, tokens and refreshed tokens of an OpenID Connect issuer."""
    await seed.device(conn)
    stop, port = asyncio.Event(), free_port()
    provider = Provider(f"http://127.0.0.1:{port}")
    serving = asyncio.create_task(serve(provider.app, host="127.0.0.1", port=port, stop=stop))
    answer = {"access_token": token(iss=provider.url), "token_type": "Bearer", "expires_in": 600}
    provider.token_answer = JSONResponse(answer)
    try:
        async with ready_service("services.ui_iot", app_url, oidc_issuer=provider.url) as running:
            good = await running.get("/api/v1/devices", authorization=f"Bearer {token(iss=provider.url)}")
            assert good.status_code == 200, good.text
            other = await running.get("/api/v1/devices", authorization=f"Bearer {token()}")
            assert other.json()["reason"] == "invalid_claims"
            async with httpx.AsyncClient(base_url=running.url) as client:
                refreshed = await client.post("/auth/refresh", json={"refresh_token": "r1"})
            assert refreshed.json() == answer
            assert await running.stop() == 0
    finally:
        stop.set()
        await serving
    assert await conn.fetchval("select actor_id from audit_log where event_type = 'auth.token_refresh'") == "alice"


async def test_a_request_in_hand_is_answered_before_the_process_ends(
    app_url: str, conn: asyncpg.Connection, issuer: dict[str, str]
) -> None:
    """SIGTERM arrives while a change waits for a locked row. The change is made, answered and audited."""
    await seed.device(conn)
    async with ready_service("services.ui_iot", app_url, **issuer) as running:
        async with httpx.AsyncClient(base_url=running.url) as client:
            async with conn.transaction():
                await conn.execute("select 1 from devices for update")
                request = asyncio.create_task(
                    client.patch(
                        "/api/v1/devices/boiler-1",
                        json={"name": "renamed"},
                        headers={"Authorization": f"Bearer {token()}"},
                    )
                )

                async def waits() -> bool:
                    return bool(await conn.fetchval("select count(*) from pg_locks where not granted"))

                await until(waits)
                stopping = asyncio.create_task(running.stop())

                async def is_stopping() -> bool:
                    return any(line.get("message") == "stopping" for line in running.lines)

                await until(is_stopping)
            assert (await request).status_code == 200
        assert await stopping == 0
    assert await conn.fetchval("select name from devices") == "renamed"
    assert await conn.fetchval("select count(*) from audit_log where event_type = 'config.device_updated'") == 1


@pytest.mark.slow
async def test_it_lives_without_a_database_and_is_ready_when_there_is_one(issuer: dict[str, str]) -> None:
    """An orchestrator must not kill a process that only waits for the database."""
    away = f"postgresql://pulse_app@127.0.0.1:{free_port()}/pulse"
    async with service("services.ui_iot", away, **issuer) as running:

        async def lives() -> bool:
            try:
                return (await running.get("/livez")).status_code == 200
            except httpx.TransportError:
                return False

        await until(lives, seconds=30)
        assert (await running.get("/readyz")).status_code == 503
        users = await running.get("/api/v1/devices", authorization=f"Bearer {token()}")
        assert users.status_code == 503
        devices = await running.get("/api/v1/devices", authorization="Bearer pdt_acme_" + "A" * 43)
        assert (devices.status_code, devices.json()["reason"]) == (503, "auth_unavailable")
        assert await running.stop() == 0


@pytest.mark.slow
async def test_hostile_bytes_on_the_wire_break_nothing(
    app_url: str, conn: asyncpg.Connection, issuer: dict[str, str]
) -> None:
    """Requests that uvicorn accepts are answered with a trace id. Every log line stays one JSON object."""
    await seed.tenant(conn)
    async with ready_service("services.ui_iot", app_url, **issuer) as running:
        for head in (
            b"GET /api/v1/rules HTTP/1.1\r\nHost: [::]\r\nAuthorization: Bearer \xff\xfe\r\nConnection: close\r\n\r\n",
            b"GET /%ff%00%0a HTTP/1.1\r\nHost: [::]\r\nX-Trace-ID: \x80\x81\r\nConnection: close\r\n\r\n",
            b"BREW /\xc3\xa9 HTTP/1.1\r\nHost: \xff\r\nCookie: pulse_session=\xff\r\nConnection: close\r\n\r\n",
            b"POST /ingest/v1/readings HTTP/1.1\r\nHost: [::]\r\nContent-Length: 99999999\r\nConnection: close\r\n\r\n",
            b"POST /auth/refresh HTTP/1.1\r\nHost: [::]\r\nContent-Length: 2\r\nConnection: close\r\n\r\n[]",
        ):
            answer = await asyncio.to_thread(_exchange, running.port, head)
            headers = answer.partition(b"\r\n\r\n")[0].lower()
            if b"x-trace-id: " in headers:
                found = headers.partition(b"x-trace-id: ")[2][:32].decode()
                assert tracing.parse_trace_id(found) == found
            else:
                assert answer.startswith(b"HTTP/1.1 400"), answer  # refused by the server itself
        assert (await running.get("/livez")).status_code == 200
        assert await running.stop() == 0
    assert [line for line in running.lines if "not_json" in line] == []


def _exchange(port: int, head: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(head)
        answer = b""
        while chunk := connection.recv(65536):
            answer += chunk
        return answer


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("PULSE_TRUSTED_PROXIES", "10.0.0.0/8,proxy", "PULSE_TRUSTED_PROXIES"),
        ("PULSE_JWKS_FILE", "/nowhere/jwks.json", "PULSE_JWT_ISSUER"),
        ("PULSE_AUTH_RATE_LIMIT_PER_MINUTE", "-1", "PULSE_AUTH_RATE_LIMIT_PER_MINUTE"),
        ("PULSE_DATABASE_URL", "mysql://x", "PULSE_DATABASE_URL"),
    ],
)
def test_a_setting_that_is_wrong_is_named_at_start(name: str, value: str, expected: str) -> None:
    """The process prints one line without a traceback and exits with status 2."""
    done = subprocess.run(
        [sys.executable, "-m", "services.ui_iot"],
        cwd=ROOT,
        env={"PULSE_DATABASE_URL": "postgresql://x@127.0.0.1:1/x", name: value},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert expected in done.stderr
    assert "Traceback" not in done.stderr


async def test_head_leaves_the_connection_in_order(
    app_url: str, conn: asyncpg.Connection, issuer: dict[str, str]
) -> None:
    """On a kept connection, a body after a HEAD would be read as the next response."""
    await seed.device(conn)
    async with ready_service("services.ui_iot", app_url, **issuer) as running:
        async with httpx.AsyncClient(base_url=running.url, headers={"Authorization": f"Bearer {token()}"}) as client:
            for path in ("/api/v1/devices", "/api/v1/devices/boiler-1", "/api/v1/audit/tail", "/docs", "/api/v1/no"):
                head = await client.head(path)
                assert head.status_code == (404 if path == "/api/v1/no" else 200)
                got = await client.get("/api/v1/devices/boiler-1")
                assert got.json()["device_id"] == "boiler-1"
        assert await running.stop() == 0
