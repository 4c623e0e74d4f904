"""The issuer's keys: fetched, renewed, shared, and kept while the issuer is away."""

import asyncio
import base64
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
from starlette.responses import JSONResponse, Response

from services.shared.http_client import traced_client
from services.ui_iot.auth.jwks import FRESH_SECONDS, RETRY_SECONDS, Jwks, KeySource
from services.ui_iot.auth.key_sources import JwksFile, JwksUrl
from services.ui_iot.auth.oidc import Granted, Issuer
from services.ui_iot.auth.principal import Principal
from services.ui_iot.auth.provider_faults import ProviderError
from services.ui_iot.auth.refusals import Refusal
from services.ui_iot.auth.tokens import TokenVerifier
from services.ui_iot.auth.trust import Trust
from services.ui_iot.auth.user_tokens import UserTokens
from tests.support.api_client import EC, ISSUER, RSA, KeyServer, SigningKey, claims, ec_key, sign, token
from tests.support.identity_provider import Provider, reason
from tests.support.receiver import Receiver
from tests.support.stepped_clock import SteppedClock


def users_of(source: KeySource, clock: SteppedClock) -> UserTokens:
    return UserTokens(Jwks(source, clock=clock), TokenVerifier(Trust(ISSUER)))


async def test_an_unknown_key_id_asks_the_issuer_once_in_a_while() -> None:
    """A rotated key is found, and forged ids cause few requests to the issuer."""
    source, clock = KeyServer(), SteppedClock()
    users = users_of(source, clock)
    assert await reason(users, token()) is None
    assert source.asked == 1
    rotated = ec_key("ec-2")
    fresh = sign(claims(), key=rotated)
    source.document = {"keys": [EC.public(), rotated.public()]}
    # The first look was just now.
    assert await reason(users, fresh) == "unknown_key"
    clock.now += RETRY_SECONDS
    assert await reason(users, fresh) is None
    assert source.asked == 2
    for number in range(100):
        assert await reason(users, sign(claims(), key=EC, headers={"kid": f"forged-{number}"})) == "unknown_key"
    assert source.asked == 2
    assert await reason(users, token()) is None


async def test_a_provider_that_restarts_with_the_same_key_id_is_asked_once_in_a_while() -> None:
    """A wrong signature under a known id causes one fetch. Forged ones cause few requests to the issuer."""
    source, clock = KeyServer(document={"keys": [EC.public()]}), SteppedClock()
    users = users_of(source, clock)
    old = token()
    assert await reason(users, old) is None
    renewed = ec_key(EC.kid)
    source.document = {"keys": [renewed.public()]}
    fresh = sign(claims(), key=renewed)
    # The first look was just now.
    assert await reason(users, fresh) == "invalid_token"
    clock.now += RETRY_SECONDS
    assert await asyncio.gather(*(reason(users, fresh) for _ in range(20))) == [None] * 20
    assert source.asked == 2
    # The old key's signatures are no longer valid, neither from the cache nor by a check.
    assert users.remembered(old) is None
    clock.now += RETRY_SECONDS
    for _ in range(100):
        assert await reason(users, sign(claims(), key=SigningKey(EC.kid, "ES256", ec_key().pem))) == "invalid_token"
    assert source.asked == 3
    # Forged signatures and unknown ids share the fetch interval.
    assert await reason(users, sign(claims(), key=ec_key("unknown"))) == "unknown_key"
    assert source.asked == 3
    assert await reason(users, fresh) is None


async def test_a_wrong_signature_while_the_issuer_is_away_is_not_held_against_the_client() -> None:
    """Its key may be temporarily unavailable. A valid signature needs no fetch."""
    source, clock = KeyServer(document={"keys": [EC.public()]}), SteppedClock()
    users = users_of(source, clock)
    assert await reason(users, token()) is None
    source.error = httpx.ConnectError("away")
    clock.now += RETRY_SECONDS
    forged = sign(claims(), key=SigningKey(EC.kid, "ES256", ec_key().pem))
    assert await reason(users, forged) == "auth_unavailable"
    assert await reason(users, token(sub="bob")) is None


async def test_concurrent_requests_share_one_look() -> None:
    source, clock = KeyServer(), SteppedClock()
    entered, release = asyncio.Event(), asyncio.Event()
    fetch = source.fetch_keys

    async def slow() -> object:
        entered.set()
        await release.wait()
        return await fetch()

    source.fetch_keys = slow  # type: ignore[method-assign]  # this source answers when the test says so
    users = users_of(source, clock)
    checks = [asyncio.create_task(reason(users, token(sub=f"user-{number}"))) for number in range(50)]
    await entered.wait()
    checks[0].cancel()  # a canceled check does not cancel the others
    release.set()
    results = await asyncio.gather(*checks, return_exceptions=True)
    assert isinstance(results[0], asyncio.CancelledError)
    assert results[1:] == [None] * 49
    assert source.asked == 1


@pytest.mark.parametrize(
    "error", [httpx.ConnectError("away"), ProviderError("HTTP 500"), ValueError("not JSON"), OSError()]
)
async def test_known_keys_stay_while_the_issuer_is_away(error: Exception) -> None:
    source, clock = KeyServer(), SteppedClock()
    users = users_of(source, clock)
    assert await reason(users, token()) is None
    source.error = error
    clock.now += 100 * FRESH_SECONDS
    assert await reason(users, token(sub="bob")) is None
    # An unknown key may be a new one, so the caller is asked to retry instead of being refused.
    assert await reason(users, sign(claims(), key=ec_key("new"))) == "auth_unavailable"
    source.error = None
    clock.now += RETRY_SECONDS
    assert await reason(users, sign(claims(), key=ec_key("new"))) == "unknown_key"


async def test_without_any_keys_authentication_is_unavailable_until_the_issuer_answers() -> None:
    source, clock = KeyServer(error=httpx.ConnectError("away")), SteppedClock()
    users = users_of(source, clock)
    assert await reason(users, token()) == "auth_unavailable"
    source.error = None
    assert await reason(users, token()) == "auth_unavailable"
    clock.now += 1.0
    assert await reason(users, token()) is None


async def test_old_keys_are_renewed_behind_the_caller_and_a_revoked_one_stops() -> None:
    source, clock = KeyServer(), SteppedClock()
    jwks = Jwks(source, clock=clock)
    users = UserTokens(jwks, TokenVerifier(Trust(ISSUER)))
    text = token()
    assert await reason(users, text) is None
    source.document = {"keys": [RSA.public()]}
    clock.now += FRESH_SECONDS + 1
    assert await reason(users, text) is None  # cached, while the fetch runs in the background
    await jwks.newer()
    assert users.remembered(text) is None
    assert await reason(users, text) == "unknown_key"


async def test_the_same_keys_again_keep_the_verified_tokens() -> None:
    source, clock = KeyServer(), SteppedClock()
    jwks = Jwks(source, clock=clock)
    users = UserTokens(jwks, TokenVerifier(Trust(ISSUER)))
    text = token()
    await users.check(text)
    clock.now += FRESH_SECONDS + 1
    await jwks.newer()
    assert source.asked == 2
    assert isinstance(users.remembered(text), Principal)


async def test_a_look_under_way_is_given_up_at_the_end() -> None:
    never = asyncio.Event()

    class Silent(KeyServer):
        async def fetch_keys(self) -> object:
            await never.wait()
            return None

    jwks = Jwks(Silent())
    look = asyncio.create_task(jwks.newer())
    await asyncio.sleep(0)
    await jwks.close()
    with pytest.raises(asyncio.CancelledError):
        await look


@pytest.mark.parametrize(
    "url", ["http://[::1", "http://issuer.test:port/", "http://issuer.test:99999999/", "http://a\x00b/", "ftp://x/", ""]
)
async def test_an_address_that_is_none_makes_authentication_unavailable(url: str) -> None:
    """A mistyped address in the settings or the issuer's description must not cause a 500 or a dead process."""
    server = Provider()
    server.description |= {"jwks_uri": url, "token_endpoint": url}
    async with traced_client(trusted=True) as client:
        assert await reason(users_of(JwksUrl(client, url), SteppedClock()), token()) == "auth_unavailable"
    async with httpx.AsyncClient(transport=httpx.ASGITransport(server.app)) as client:
        issuer = Issuer(client, server.url, client_id="pulse")
        assert await reason(users_of(issuer, SteppedClock()), token()) == "auth_unavailable"
        refused = await issuer.refresh("r1")
        assert isinstance(refused, Refusal)
        assert refused.reason == "auth_unavailable"


class Torn(httpx.AsyncBaseTransport):
    """A network where every one of a name's addresses fails in its own way."""

    async def handle_async_request(self, _request: httpx.Request) -> httpx.Response:
        """Return nothing."""
        raise ExceptionGroup("all addresses failed", [OSError("refused"), TimeoutError()])


async def test_several_failures_at_once_make_authentication_unavailable() -> None:
    async with httpx.AsyncClient(transport=Torn()) as client:
        jwks = Jwks(JwksUrl(client, "http://issuer.test/jwks"))
        assert await jwks.newer() is None
        assert jwks.failing
        refused = await Issuer(client, "http://issuer.test", client_id="pulse").refresh("r1")
        assert isinstance(refused, Refusal)
        assert refused.reason == "auth_unavailable"


async def test_keys_come_from_a_file_too(tmp_path: Path) -> None:
    path = tmp_path / "jwks.json"
    path.write_bytes(orjson.dumps({"keys": [EC.public()]}))
    assert await JwksFile(path).fetch_keys() == {"keys": [EC.public()]}
    jwks = Jwks(JwksFile(tmp_path / "missing.json"))
    assert await jwks.newer() is None
    assert jwks.failing


@pytest.fixture
async def provider() -> AsyncIterator[tuple[Provider, Issuer]]:
    made = Provider()
    async with httpx.AsyncClient(transport=httpx.ASGITransport(made.app)) as client:
        yield made, Issuer(client, made.url, client_id="pulse", client_secret="hush")


async def test_keys_are_found_by_discovery(provider: tuple[Provider, Issuer]) -> None:
    """A mixed RSA and EC document serves both."""
    _, issuer = provider
    users = UserTokens(Jwks(issuer), TokenVerifier(Trust(ISSUER)))
    assert await reason(users, token()) is None
    assert await reason(users, sign(claims(), key=RSA)) is None


@pytest.mark.parametrize(
    "bend",
    [
        {"issuer": "http://other.test"},
        {"issuer": None},
        {"jwks_uri": None},
        {"jwks_uri": "file:///etc/passwd"},
        {"jwks_uri": 7},
    ],
)
async def test_a_description_that_does_not_fit_is_refused(
    provider: tuple[Provider, Issuer], bend: dict[str, Any]
) -> None:
    """The description of another issuer could name wrong keys."""
    server, issuer = provider
    server.description |= bend
    with pytest.raises(ProviderError):
        await issuer.fetch_keys()


async def test_a_description_may_have_the_name_that_the_tokens_have() -> None:
    """The description may be at another address, which the operator configures as well."""
    server = Provider()
    server.description["issuer"] = "http://tokens.test/"
    async with httpx.AsyncClient(transport=httpx.ASGITransport(server.app)) as client:
        issuer = Issuer(client, server.url, issuer="http://tokens.test/", client_id="pulse")
        assert await issuer.fetch_keys() == {"keys": [EC.public(), RSA.public()]}


async def test_an_https_issuer_may_not_send_us_to_plain_http() -> None:
    server = Provider("https://issuer.test")
    server.description["jwks_uri"] = "http://issuer.test/jwks"
    async with httpx.AsyncClient(transport=httpx.ASGITransport(server.app)) as client:
        with pytest.raises(ProviderError):
            await Issuer(client, server.url, client_id="pulse").fetch_keys()


async def test_an_address_that_answers_with_an_error_gives_no_keys(provider: tuple[Provider, Issuer]) -> None:
    server, _ = provider
    async with httpx.AsyncClient(transport=httpx.ASGITransport(server.app)) as client:
        with pytest.raises(ProviderError, match="HTTP 404"):
            await JwksUrl(client, f"{server.url}/nowhere").fetch_keys()
        assert orjson.dumps(await JwksUrl(client, f"{server.url}/jwks").fetch_keys()).startswith(b'{"keys"')


GRANT = {"grant_type": "refresh_token", "refresh_token": "r1"}
IN_THE_FORM = {"client_id": "pu:lse", "client_secret": "hu sh"}
# RFC 6749, section 2.3.1: both are form-encoded first.
IN_THE_HEADER = "Basic " + base64.b64encode(b"pu%3Alse:hu+sh").decode()


@pytest.mark.parametrize(
    ("offered", "setting", "form", "header"),
    [
        (None, "auto", {}, IN_THE_HEADER),
        (["client_secret_basic"], "auto", {}, IN_THE_HEADER),
        (["private_key_jwt", "client_secret_post"], "auto", IN_THE_FORM, None),
        (["client_secret_post", "client_secret_basic"], "auto", {}, IN_THE_HEADER),
        (["client_secret_basic"], "client_secret_post", IN_THE_FORM, None),
        (["client_secret_post"], "client_secret_basic", {}, IN_THE_HEADER),
    ],
)
async def test_the_client_is_shown_as_the_issuer_or_the_setting_says(
    offered: list[str] | None, setting: str, form: dict[str, str], header: str | None
) -> None:
    server = Provider()
    if offered is not None:
        server.description["token_endpoint_auth_methods_supported"] = offered
    async with httpx.AsyncClient(transport=httpx.ASGITransport(server.app)) as client:
        issuer = Issuer(client, server.url, client_id="pu:lse", client_secret="hu sh", client_auth=setting)
        result = await issuer.refresh("r1")
    assert isinstance(result, Granted)
    assert result.answer == {"access_token": "new", "token_type": "Bearer", "expires_in": 300}
    assert server.forms == [{**GRANT, **form}]
    assert server.authorizations == [header]


async def test_a_public_client_shows_its_id_only() -> None:
    server = Provider()
    async with httpx.AsyncClient(transport=httpx.ASGITransport(server.app)) as client:
        await Issuer(client, server.url, client_id="pulse").refresh("r1")
    assert server.forms == [{**GRANT, "client_id": "pulse"}]
    assert server.authorizations == [None]


async def test_an_issuer_that_takes_no_secret_is_named_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """The refresh token stays unused."""
    server = Provider()
    server.description["token_endpoint_auth_methods_supported"] = ["private_key_jwt", "tls_client_auth"]
    async with httpx.AsyncClient(transport=httpx.ASGITransport(server.app)) as client:
        issuer = Issuer(client, server.url, client_id="pulse", client_secret="hush")
        refused = [await issuer.refresh(f"r{number}") for number in range(3)]
    assert [each.reason for each in refused if isinstance(each, Refusal)] == ["auth_unavailable"] * 3
    assert server.forms == []
    [line] = [record.getMessage() for record in caplog.records]
    assert "private_key_jwt, tls_client_auth" in line
    assert "client_secret_basic" in line
    assert f"{server.url}/token" in line


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (JSONResponse({"error": "invalid_grant"}, 400), "invalid_token"),
        (JSONResponse({"error": "invalid_grant"}, 401), "invalid_token"),
        (JSONResponse({"error": "invalid_client"}, 401), "auth_unavailable"),
        (JSONResponse({"error": "server_error"}, 500), "auth_unavailable"),
        (JSONResponse({"token_type": "Bearer"}, 200), "auth_unavailable"),
        (JSONResponse(["access_token"], 200), "auth_unavailable"),
        (Response("<html>", 200), "auth_unavailable"),
        (Response("", 302, {"location": "http://elsewhere.test"}), "auth_unavailable"),
    ],
)
async def test_refusals_and_failures_of_the_issuer_are_distinguished(
    provider: tuple[Provider, Issuer], answer: Response, expected: str
) -> None:
    server, issuer = provider
    server.token_answer = answer
    result = await issuer.refresh("r1")
    assert isinstance(result, Refusal)
    assert result.reason == expected


async def test_an_issuer_may_stand_at_a_private_address() -> None:
    """The operator configures the issuer's address. A tenant configures a channel's, which must be public."""

    async def resolve(_host: str, _port: int) -> list[str]:
        return ["127.0.0.1", "10.0.0.1"]

    async with Receiver() as receiver:
        receiver.default = (200, {}, b'{"keys": []}')
        url = f"http://issuer.internal:{receiver.port}/jwks"
        async with traced_client(trusted=True, resolve=resolve) as client:
            assert await JwksUrl(client, url).fetch_keys() == {"keys": []}
        async with traced_client(allow_private=True, resolve=resolve) as client:
            with pytest.raises(ProviderError, match="not a public one"):
                await JwksUrl(client, url).fetch_keys()
