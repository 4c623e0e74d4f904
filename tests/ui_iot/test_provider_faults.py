"""Faults of providers are reported once with address, status and advice, and never counted against a client."""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from services.shared.http_client import traced_client
from services.ui_iot.auth.jwks import RETRY_SECONDS, Jwks
from services.ui_iot.auth.key_sources import JwksFile
from services.ui_iot.auth.oidc import Issuer
from services.ui_iot.auth.provider_faults import LOG_SECONDS, shown
from services.ui_iot.auth.tokens import TokenVerifier
from services.ui_iot.auth.trust import Trust
from services.ui_iot.auth.user_tokens import UserTokens
from tests.support import seed
from tests.support.api_client import EC, ISSUER, KeyServer, claims, ec_key, open_api, sign, token
from tests.support.certificates import PrivateCa
from tests.support.identity_provider import Provider, reason
from tests.support.processes import free_port, ready_service
from tests.support.proxy import TunnelProxy
from tests.support.receiver import Receiver
from tests.support.stepped_clock import SteppedClock
from tests.support.wait import until

URL = "http://issuer.test"
DESCRIPTION = f"{URL}/.well-known/openid-configuration"


def one_answer(answer: Response) -> Starlette:
    """Return a provider with the same answer for every request."""

    async def always(_request: Request) -> Response:
        return answer

    return Starlette(routes=[Route("/{path:path}", always, methods=["GET", "POST"])])


def bent(**changes: Any) -> Starlette:
    """Return a provider with another description."""
    provider = Provider(URL)
    provider.description |= changes
    return provider.app


KEYLESS = [{"kty": "OKP", "crv": "Ed25519", "x": "AAAA", "kid": "ed"}]


@pytest.mark.parametrize(
    ("app", "parts"),
    [
        (bent(issuer=f"{URL}/"), [DESCRIPTION, "HTTP 200", f"{URL}/", "trailing slash", "PULSE_OIDC_ISSUER"]),
        (bent(issuer="https://other.test"), [DESCRIPTION, "another issuer", "https://other.test"]),
        (bent(issuer=None), [DESCRIPTION, "names no issuer"]),
        (bent(jwks_uri="file:///etc/passwd"), [DESCRIPTION, "no usable jwks_uri"]),
        (bent(jwks_uri=f"{URL}/nowhere"), [f"{URL}/nowhere", "HTTP 404", "check the issuer"]),
        (
            one_answer(RedirectResponse("https://login.test/auth?state=s3cret", 302)),
            [DESCRIPTION, "HTTP 302", "redirect to https://login.test/auth", "not followed"],
        ),
        (one_answer(HTMLResponse("<html>Sign in</html>")), [DESCRIPTION, "HTTP 200", "HTML", "text/html", "proxy"]),
        (one_answer(Response(b"\xef\xbb\xbf<html>")), [DESCRIPTION, "HTML", "content type unset"]),
        (one_answer(Response(b"", 200)), [DESCRIPTION, "HTTP 200", "not JSON"]),
        (one_answer(JSONResponse(["keys"])), [DESCRIPTION, "names no issuer"]),
        (bent(jwks_uri=DESCRIPTION), [DESCRIPTION, "HTTP 200", "no list of keys", "check the address"]),
        (one_answer(Response("Forbidden", 403)), [DESCRIPTION, "HTTP 403", "without a login"]),
        (one_answer(Response("oops", 500)), [DESCRIPTION, "HTTP 500", "provider's log"]),
    ],
)
async def test_a_fault_is_named_once_with_address_status_and_advice(
    app: Starlette, parts: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    clock = SteppedClock()
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app)) as client:
        jwks = Jwks(Issuer(client, URL, client_id="pulse", clock=clock), issuer=URL, clock=clock)
        users = UserTokens(jwks, TokenVerifier(Trust(ISSUER)))
        for _ in range(30):
            assert await reason(users, token()) == "auth_unavailable"
            clock.now += 1.0
        [line] = [record.getMessage() for record in caplog.records if record.name.startswith("services")]
        for part in parts:
            assert part in line
        assert "s3cret" not in line
        assert jwks.faults.newest is not None
        assert jwks.faults.newest in line
        clock.now += LOG_SECONDS
        await jwks.newer()
        assert len([record for record in caplog.records if record.name.startswith("services")]) == 2


async def test_a_bom_is_ignored_and_named(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    app = bent(jwks_uri=f"{URL}/jwks/bom")
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app)) as client:
        jwks = Jwks(Issuer(client, URL, client_id="pulse"), issuer=URL)
        assert await reason(UserTokens(jwks, TokenVerifier(Trust(ISSUER))), token()) is None
    [line] = [record.getMessage() for record in caplog.records if record.name.startswith("services")]
    assert f"{URL}/jwks/bom: HTTP 200, the JSON begins with a BOM" in line
    assert not jwks.failing
    path = tmp_path / "jwks.json"
    path.write_bytes(b"\xef\xbb\xbf" + b'{"keys": []}')
    assert await JwksFile(path).fetch_keys() == {"keys": []}


async def test_a_provider_without_a_usable_key_is_at_fault_not_the_token(caplog: pytest.LogCaptureFixture) -> None:
    source, clock = KeyServer({"keys": KEYLESS}), SteppedClock()
    jwks = Jwks(source, issuer=URL, clock=clock)
    users = UserTokens(jwks, TokenVerifier(Trust(ISSUER)))
    assert await reason(users, token()) == "auth_unavailable"
    assert jwks.failing
    assert "no key for RS256, PS256, ES256, ES384" in caplog.text
    source.document = {"keys": [EC.public()]}
    clock.now += RETRY_SECONDS
    assert await reason(users, token()) is None
    assert (jwks.failing, jwks.faults.newest, jwks.usable_keys, jwks.age_seconds) == (False, None, 1, 0.0)


async def test_a_provider_that_hangs_costs_a_bounded_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.ui_iot.auth.key_sources.DOCUMENT_SECONDS", 0.05)
    async with Receiver() as silent, traced_client(trusted=True) as client:
        silent.hold.clear()
        jwks = Jwks(Issuer(client, silent.url, client_id="pulse"), issuer=silent.url)
        assert await jwks.newer() is None
        assert jwks.faults.newest is not None
        assert f"{silent.url}/.well-known/openid-configuration: no answer within 0.05 s" in jwks.faults.newest


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("https://us:er@host:1/p?token=x#y", "https://host:1/p"),
        ("http://[::1/x?secret", "http://[::1/x"),
        ("http://a\nb/", "http://ab/"),
        ("", ""),
    ],
)
def test_an_address_is_shown_without_secrets(url: str, said: str) -> None:
    assert shown(url) == said


async def test_refusals_for_a_provider_are_not_counted(app_url: str, conn: asyncpg.Connection) -> None:
    """Neither stale nor missing keys count. The limit still holds for real failures."""
    await seed.tenant(conn)
    async with open_api(app_url, auth_rate_limit_per_minute=2) as api:
        api.keys.error = httpx.ConnectError("away")
        users = api.backend.authenticator.users
        assert isinstance(users, UserTokens)
        users._jwks._tried_at = float("-inf")  # noqa: SLF001  # the pause between two looks has passed
        headers = {"Authorization": f"Bearer {sign(claims(), key=ec_key('new'))}"}
        answers = [await api.client.get("/api/v1/devices", headers=headers) for _ in range(5)]
        assert {answer.status_code for answer in answers} == {503}
        assert {answer.json()["reason"] for answer in answers} == {"auth_unavailable"}
        assert all(int(answer.headers["retry-after"]) > 0 for answer in answers)
        rubbish = {"Authorization": "Bearer rubbish"}
        statuses = [(await api.client.get("/api/v1/devices", headers=rubbish)).status_code for _ in range(3)]
        assert statuses == [401, 401, 429]


class Server(uvicorn.Server):
    """A server that leaves signal handling to pytest."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield


@asynccontextmanager
async def tls_provider(provider: Provider, certificate: Path, port: int) -> AsyncIterator[None]:
    """Yield the provider behind TLS on loopback."""
    config = uvicorn.Config(
        provider.app, host="127.0.0.1", port=port, ssl_certfile=certificate, log_config=None, lifespan="off"
    )
    server = Server(config)
    serving = asyncio.create_task(server.serve())
    try:
        await until(lambda: server.started)
        yield
    finally:
        server.should_exit = True
        await serving


@pytest.mark.slow
async def test_a_private_provider_behind_a_proxy(app_url: str, conn: asyncpg.Connection, tmp_path: Path) -> None:
    """Real processes: only the proxy knows the provider, whose private authority is reported until it is trusted."""
    await seed.tenant(conn)
    ca, port = PrivateCa(tmp_path), free_port()
    provider = Provider(f"https://issuer.example:{port}")
    provider.description["token_endpoint_auth_methods_supported"] = ["client_secret_basic"]
    provider.token_answer = JSONResponse({"access_token": token(iss=provider.url), "token_type": "Bearer"})
    async with (
        tls_provider(provider, ca.certificate("issuer.example"), port),
        TunnelProxy(hosts={"issuer.example": "127.0.0.1"}) as proxy,
    ):
        settings = {
            "oidc_issuer": provider.url,
            "oidc_client_secret": "hush",
            "egress_proxy": proxy.url,
            "auth_rate_limit_per_minute": "1",
        }
        good = f"Bearer {token(iss=provider.url)}"
        async with ready_service("services.ui_iot", app_url, **settings) as running:
            answers = [await running.get("/api/v1/devices", authorization=good) for _ in range(3)]
            assert [answer.status_code for answer in answers] == [503] * 3
            [state] = (await running.get("/health")).json()["identity_providers"]
            assert (state["issuer"], state["usable_keys"], state["failing"]) == (provider.url, 0, True)
            assert "PULSE_CA_FILE" in state["fault"]
            assert f"{provider.url}/.well-known/openid-configuration" in state["fault"]
            metrics = (await running.get("/metrics")).text
            assert f'pulse_oidc_failing{{issuer="{provider.url}"}} 1.0' in metrics
            assert "pulse_oidc_keys_age_seconds{" not in metrics
            assert await running.stop() == 0
        named = [line for line in running.lines if "PULSE_CA_FILE" in line.get("message", "")]
        assert len(named) == 1
        async with ready_service("services.ui_iot", app_url, **settings, ca_file=str(ca.file)) as running:
            assert (await running.get("/api/v1/devices", authorization=good)).status_code == 200
            async with httpx.AsyncClient(base_url=running.url, trust_env=False) as client:
                answer = await client.post("/auth/refresh", json={"refresh_token": "r1"})
            assert answer.status_code == 200
            [state] = (await running.get("/health")).json()["identity_providers"]
            assert (state["usable_keys"], state["failing"], state["fault"]) == (2, False, None)
            metrics = (await running.get("/metrics")).text
            assert f'pulse_oidc_failing{{issuer="{provider.url}"}} 0.0' in metrics
            assert f'pulse_oidc_keys_age_seconds{{issuer="{provider.url}"}}' in metrics
            assert await running.stop() == 0
    assert set(proxy.asked) == {f"CONNECT issuer.example:{port} HTTP/1.1"}
    assert provider.forms == [{"grant_type": "refresh_token", "refresh_token": "r1"}]
    assert provider.authorizations[0] is not None
