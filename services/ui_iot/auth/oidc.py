"""What we ask of an OpenID Connect issuer: its description, its keys, a new token for a refresh token."""

import asyncio
import base64
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote_plus, urlsplit

import httpx
import orjson

from services.ui_iot.auth.provider_faults import (
    UNREACHABLE,
    FaultLog,
    ProviderError,
    not_json,
    unreachable,
    wrong_status,
)
from services.ui_iot.auth.refusals import Refusal

log = logging.getLogger(__name__)

# A provider that moves its keys to another address does so rarely; the document is asked for again after this.
DISCOVERY_SECONDS = 600.0
# Longest wait for the description or the keys. Requests with tokens of unknown keys wait for both.
DOCUMENT_SECONDS = 4.0

_BOM = b"\xef\xbb\xbf"
_BASIC, _POST = "client_secret_basic", "client_secret_post"
_UNREACHED = Refusal("auth_unavailable", "The issuer cannot be reached.", retry_after_seconds=5)
_UNEXPECTED = Refusal("auth_unavailable", "The issuer did not answer as expected.", retry_after_seconds=5)


@dataclass(frozen=True, slots=True)
class Granted:
    """The issuer's answer to a refresh grant, as it came."""

    answer: dict[str, Any]


class _Description(NamedTuple):
    """An issuer's discovery document."""

    fetched_at: float
    members: dict[str, Any]
    note: str | None


class KeyFile:
    """A JWKS document in a file; read again whenever keys are asked for."""

    note: str | None = None

    def __init__(self, path: Path) -> None:
        self._path = path

    async def fetch_keys(self) -> object:
        """Return the document. Raises ProviderError."""
        try:
            return orjson.loads(self._path.read_bytes().removeprefix(_BOM))
        except OSError as error:
            raise ProviderError(f"cannot be read: {error.strerror}", url=str(self._path)) from None
        except ValueError:
            raise ProviderError("is not JSON", url=str(self._path)) from None


class KeyUrl:
    """A JWKS document at a fixed address."""

    def __init__(self, client: httpx.AsyncClient, url: str) -> None:
        self._client = client
        self._url = url
        self.note: str | None = None
        """A fault that did not keep the last document from being read."""

    async def fetch_keys(self) -> object:
        """Return the document. Raises ProviderError."""
        document, self.note = await _get_keys(self._client, self._url)
        return document


class Issuer:
    """An issuer found by its own description below /.well-known/openid-configuration.

    url: where the description is; issuer: the name in its tokens, when it is another.
    """

    def __init__(
        self,
        client: httpx.AsyncClient,
        url: str,
        *,
        issuer: str | None = None,
        client_id: str,
        client_secret: str | None = None,
        client_auth: str = "auto",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._url = url
        self._names = {url, issuer or url}
        self._client_id = client_id
        self._client_secret = client_secret
        self._client_auth = client_auth
        self._clock = clock
        self._description: _Description | None = None
        self.faults = FaultLog(log, issuer or url, clock=clock)
        """Faults of the token endpoint."""
        self.note: str | None = None
        """A fault that did not keep the last documents from being read."""

    async def fetch_keys(self) -> object:
        """Return the JWKS document that the description names. Raises ProviderError."""
        try:
            document, note = await _get_keys(self._client, await self._endpoint("jwks_uri"))
        except ProviderError:
            # The description may be out of date. Callers limit how often keys are fetched.
            self._description = None
            raise
        self.note = note or (self._description.note if self._description else None)
        return document

    async def refresh(self, refresh_token: str) -> Granted | Refusal:
        """Exchange a refresh token; what the issuer refuses is invalid_token, its absence auth_unavailable."""
        try:
            url = await self._endpoint("token_endpoint")
            form, headers = self._authenticate(url)
            form |= {"grant_type": "refresh_token", "refresh_token": refresh_token}
            response = await _send(self._client, "POST", url, data=form, headers=headers)
            return self._read_grant(response, url)
        except ProviderError as fault:
            self.faults.report(str(fault), effect="sessions cannot be refreshed")
            return _UNREACHED

    def _read_grant(self, response: httpx.Response, url: str) -> Granted | Refusal:
        if response.is_redirect:
            raise wrong_status(response, url)
        answer, _ = _read_json(response, url)
        error = answer.get("error") if isinstance(answer, dict) else None
        if response.status_code == 200 and isinstance(answer, dict) and isinstance(answer.get("access_token"), str):
            self.faults.clear()
            return Granted(answer)
        # RFC 6749 section 5.2: anything but invalid_grant is a fault of our configuration or the issuer's.
        if response.status_code in (400, 401) and error == "invalid_grant":
            self.faults.clear()
            return Refusal("invalid_token", "The issuer does not accept the refresh token.")
        if response.status_code != 200 and error is None:
            raise wrong_status(response, url)
        code = error if isinstance(error, str) and error.isprintable() and len(error) <= 50 else "no access_token"
        advice = ""
        if code in ("invalid_client", "unauthorized_client"):
            advice = "check PULSE_OIDC_CLIENT_ID, PULSE_OIDC_CLIENT_SECRET and PULSE_OIDC_CLIENT_AUTH"
        fault = ProviderError(f"HTTP {response.status_code}, {code}", url=url, advice=advice)
        self.faults.report(str(fault), effect="sessions cannot be refreshed")
        return _UNEXPECTED

    def _authenticate(self, url: str) -> tuple[dict[str, str], dict[str, str]]:
        """Return form fields and headers that show the client (RFC 6749 section 2.3.1). Raises ProviderError."""
        headers = {"accept": "application/json"}
        if self._client_secret is None:
            return {"client_id": self._client_id}, headers
        if self._choose_client_auth(url) == _POST:
            return {"client_id": self._client_id, "client_secret": self._client_secret}, headers
        pair = f"{quote_plus(self._client_id)}:{quote_plus(self._client_secret)}"
        return {}, {**headers, "authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}

    def _choose_client_auth(self, url: str) -> str:
        if self._client_auth != "auto":
            return self._client_auth
        # OpenID Connect Discovery, section 3: client_secret_basic unless the description says otherwise.
        offered = self._description.members.get("token_endpoint_auth_methods_supported") if self._description else None
        methods = offered if isinstance(offered, list) else [_BASIC]
        chosen = next((method for method in (_BASIC, _POST) if method in methods), None)
        if chosen is None:
            names = ", ".join(str(each)[:50] for each in methods[:5] if str(each).isprintable())
            advice = f"Pulse can use {_BASIC} and {_POST}: allow one of them for the client"
            raise ProviderError(f"the issuer offers only {names or 'no'} client authentication", url=url, advice=advice)
        return chosen

    async def _endpoint(self, name: str) -> str:
        where = self._url.rstrip("/") + "/.well-known/openid-configuration"
        known = self._description
        if known is None or self._clock() - known.fetched_at > DISCOVERY_SECONDS:
            document, note = await _get_json(self._client, where)
            members = document if isinstance(document, dict) else {}
            self._check_name(members.get("issuer"), where)
            self._description = known = _Description(self._clock(), members, note)
        endpoint = known.members.get(name)
        if not isinstance(endpoint, str) or not self._is_as_safe(endpoint):
            raise ProviderError(f"HTTP 200, but the description has no usable {name}", url=where)
        return endpoint

    def _check_name(self, name: object, where: str) -> None:
        """Raise ProviderError when the description is another issuer's: it could point us to other keys.

        Section 4.3 of OpenID Connect Discovery.
        """
        if isinstance(name, str) and name in self._names:
            return
        if not isinstance(name, str):
            raise ProviderError("HTTP 200, but the description names no issuer", url=where)
        own = {each.rstrip("/") for each in self._names}
        spelled = name[:200] if name.isprintable() else "something unprintable"
        hint = "it differs by the trailing slash: " if name.rstrip("/") in own else ""
        raise ProviderError(
            f"HTTP 200, but the description belongs to another issuer, {spelled}",
            url=where,
            advice=f"{hint}if it is the right one, set PULSE_OIDC_ISSUER to exactly this text",
        )

    def _is_as_safe(self, endpoint: str) -> bool:
        """An https issuer may not send us on to plain http."""
        try:
            scheme = urlsplit(endpoint).scheme
        except ValueError:
            return False
        return scheme == "https" or (scheme == "http" and urlsplit(self._url).scheme == "http")


async def _get_json(client: httpx.AsyncClient, url: str) -> tuple[object, str | None]:
    """Return the document at the address, and a fault that did not keep it from being read."""
    try:
        async with asyncio.timeout(DOCUMENT_SECONDS):
            response = await _send(client, "GET", url, headers={"accept": "application/json"})
    except TimeoutError:
        advice = "check the address, the network and PULSE_EGRESS_PROXY"
        raise ProviderError(f"no answer within {DOCUMENT_SECONDS:g} s", url=url, advice=advice) from None
    if response.status_code != 200:
        raise wrong_status(response, url)
    return _read_json(response, url)


async def _get_keys(client: httpx.AsyncClient, url: str) -> tuple[object, str | None]:
    document, note = await _get_json(client, url)
    if not isinstance(document, dict) or not isinstance(document.get("keys"), list):
        advice = "check the address of the keys"
        raise ProviderError("HTTP 200, but the JSON has no list of keys", url=url, advice=advice)
    return document, note


async def _send(client: httpx.AsyncClient, method: str, url: str, **rest: Any) -> httpx.Response:
    try:
        return await client.request(method, url, **rest)
    except httpx.InvalidURL as error:
        raise ProviderError(f"is no address: {error}", url=url) from None
    except UNREACHABLE as error:
        raise unreachable(error, url) from error


def _read_json(response: httpx.Response, url: str) -> tuple[object, str | None]:
    body, note = response.content, None
    if body.startswith(_BOM):
        # RFC 8259, section 8.1: a sender must not add it, a reader may ignore it.
        body = body.removeprefix(_BOM)
        advice = "it is ignored; remove it from the document"
        note = str(ProviderError(f"HTTP {response.status_code}, the JSON begins with a BOM", url=url, advice=advice))
    try:
        return orjson.loads(body), note
    except ValueError:
        raise not_json(response, url) from None
