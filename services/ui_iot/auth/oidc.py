"""Requests to an OpenID Connect issuer: its description, its keys, a new token for a refresh token."""

import base64
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple
from urllib.parse import quote_plus, urlsplit

import httpx

from services.ui_iot.auth.key_sources import get_json, get_keys, read_json, send
from services.ui_iot.auth.provider_faults import (
    FaultLog,
    ProviderError,
    wrong_status,
)
from services.ui_iot.auth.refusals import Refusal

log = logging.getLogger(__name__)

# Lifetime of the discovery document. Providers rarely move their keys to another address.
DISCOVERY_SECONDS = 600.0
_BASIC, _POST = "client_secret_basic", "client_secret_post"
_UNREACHED = Refusal("auth_unavailable", "The issuer cannot be reached.", retry_after_seconds=5)
_UNEXPECTED = Refusal("auth_unavailable", "The issuer did not answer as expected.", retry_after_seconds=5)


@dataclass(frozen=True, slots=True)
class Granted:
    """The issuer's answer to a refresh grant, unchanged."""

    answer: dict[str, Any]


class _Description(NamedTuple):
    """An issuer's discovery document."""

    fetched_at: float
    members: dict[str, Any]
    note: str | None


class Issuer:
    """An issuer with a discovery document below /.well-known/openid-configuration.

    url: base address of the document. issuer: the name in the issuer's tokens if it differs from url.
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
        """A fault of the last documents that did not prevent reading them."""

    async def fetch_keys(self) -> object:
        """Return the JWKS document that the discovery document names. Raises ProviderError."""
        try:
            document, note = await get_keys(self._client, await self._endpoint("jwks_uri"))
        except ProviderError:
            # The discovery document may be out of date. Callers limit how often keys are fetched.
            self._description = None
            raise
        self.note = note or (self._description.note if self._description else None)
        return document

    async def refresh(self, refresh_token: str) -> Granted | Refusal:
        """Exchange a refresh token. The issuer's refusal is invalid_token, its absence auth_unavailable."""
        try:
            url = await self._endpoint("token_endpoint")
            form, headers = self._authenticate(url)
            form |= {"grant_type": "refresh_token", "refresh_token": refresh_token}
            response = await send(self._client, "POST", url, data=form, headers=headers)
            return self._read_grant(response, url)
        except ProviderError as fault:
            self.faults.report(str(fault), effect="sessions cannot be refreshed")
            return _UNREACHED

    def _read_grant(self, response: httpx.Response, url: str) -> Granted | Refusal:
        if response.is_redirect:
            raise wrong_status(response, url)
        answer, _ = read_json(response, url)
        error = answer.get("error") if isinstance(answer, dict) else None
        if response.status_code == 200 and isinstance(answer, dict) and isinstance(answer.get("access_token"), str):
            self.faults.clear()
            return Granted(answer)
        # RFC 6749 section 5.2: any error but invalid_grant is a fault of the configuration or of the issuer.
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
        """Return the form fields and headers that authenticate the client (RFC 6749, 2.3.1). Raises ProviderError."""
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
        # OpenID Connect Discovery, section 3: client_secret_basic unless the document says otherwise.
        offered = self._description.members.get("token_endpoint_auth_methods_supported") if self._description else None
        methods = offered if isinstance(offered, list) else [_BASIC]
        chosen = next((method for method in (_BASIC, _POST) if method in methods), None)
        if chosen is None:
            names = ", ".join(str(each)[:50] for each in methods[:5] if str(each).isprintable())
            advice = f"Pulse can use {_BASIC} and {_POST}: allow either for the client"
            raise ProviderError(f"the issuer offers only {names or 'no'} client authentication", url=url, advice=advice)
        return chosen

    async def _endpoint(self, name: str) -> str:
        where = self._url.rstrip("/") + "/.well-known/openid-configuration"
        known = self._description
        if known is None or self._clock() - known.fetched_at > DISCOVERY_SECONDS:
            document, note = await get_json(self._client, where)
            members = document if isinstance(document, dict) else {}
            self._check_name(members.get("issuer"), where)
            self._description = known = _Description(self._clock(), members, note)
        endpoint = known.members.get(name)
        if not isinstance(endpoint, str) or not self._is_as_safe(endpoint):
            raise ProviderError(f"HTTP 200, but the description has no usable {name}", url=where)
        return endpoint

    def _check_name(self, name: object, where: str) -> None:
        """Raise ProviderError if the document is another issuer's and may name other keys.

        OpenID Connect Discovery, section 4.3.
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
        """Return whether the endpoint uses https, or http for an issuer with http."""
        try:
            scheme = urlsplit(endpoint).scheme
        except ValueError:
            return False
        return scheme == "https" or (scheme == "http" and urlsplit(self._url).scheme == "http")
