"""What we ask of an OpenID Connect issuer: its description, its keys, a new token for a refresh token."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import orjson

from services.ui_iot.refusals import Refusal

# A provider that moves its keys to another address does so rarely; the document is asked for again after this.
DISCOVERY_SECONDS = 600.0


# How asking an address fails when nobody answers there, or when it is no address at all: httpx's InvalidURL is no
# HTTPError, and a connection tried at several addresses may fail with all their errors at once.
UNREACHABLE = (httpx.HTTPError, httpx.InvalidURL, OSError, ExceptionGroup)


class ProviderError(Exception):
    """The issuer did not answer as an OpenID Connect issuer does."""


@dataclass(frozen=True, slots=True)
class Granted:
    """The issuer's answer to a refresh grant, as it came."""

    answer: dict[str, Any]


class KeyFile:
    """A JWKS document in a file; read again whenever keys are asked for."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def fetch_keys(self) -> object:
        """The document. Raises OSError and ValueError."""
        return orjson.loads(self._path.read_bytes())


class KeyUrl:
    """A JWKS document at a fixed address."""

    def __init__(self, client: httpx.AsyncClient, url: str) -> None:
        self._client = client
        self._url = url

    async def fetch_keys(self) -> object:
        """The document. Raises ProviderError, ValueError and what UNREACHABLE lists."""
        return await _get_json(self._client, self._url)


class Issuer:
    """An issuer found by its own description below /.well-known/openid-configuration."""

    def __init__(
        self,
        client: httpx.AsyncClient,
        url: str,
        *,
        client_id: str,
        client_secret: str | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._url = url
        self._client_id = client_id
        self._client_secret = client_secret
        self._clock = clock
        self._description: tuple[float, dict[str, Any]] | None = None

    async def fetch_keys(self) -> object:
        """The JWKS document the description names. Raises ProviderError, ValueError and what UNREACHABLE lists."""
        return await _get_json(self._client, await self._endpoint("jwks_uri"))

    async def refresh(self, refresh_token: str) -> Granted | Refusal:
        """Exchange a refresh token; what the issuer refuses is invalid_token, its absence auth_unavailable."""
        form = {"grant_type": "refresh_token", "refresh_token": refresh_token, "client_id": self._client_id}
        if self._client_secret is not None:
            form["client_secret"] = self._client_secret
        try:
            url = await self._endpoint("token_endpoint")
            response = await self._client.post(url, data=form, headers={"accept": "application/json"})
            answer = orjson.loads(response.content)
        except (*UNREACHABLE, ProviderError, ValueError):
            return Refusal("auth_unavailable", "The issuer cannot be reached.", retry_after_seconds=5)
        if response.status_code == 200 and isinstance(answer, dict) and isinstance(answer.get("access_token"), str):
            return Granted(answer)
        # RFC 6749 section 5.2: anything but invalid_grant is a fault of our configuration or the issuer's.
        if response.status_code in (400, 401) and isinstance(answer, dict) and answer.get("error") == "invalid_grant":
            return Refusal("invalid_token", "The issuer does not accept the refresh token.")
        return Refusal("auth_unavailable", "The issuer did not answer as expected.", retry_after_seconds=5)

    async def _endpoint(self, name: str) -> str:
        if self._description is None or self._clock() - self._description[0] > DISCOVERY_SECONDS:
            document = await _get_json(self._client, self._url.rstrip("/") + "/.well-known/openid-configuration")
            # Section 4.3 of OpenID Connect Discovery: another issuer's description could point us to other keys.
            if not isinstance(document, dict) or document.get("issuer") != self._url:
                raise ProviderError("the description belongs to another issuer")
            self._description = (self._clock(), document)
        endpoint = self._description[1].get(name)
        if not isinstance(endpoint, str) or not self._is_as_safe(endpoint):
            raise ProviderError(f"the description has no usable {name}")
        return endpoint

    def _is_as_safe(self, endpoint: str) -> bool:
        """An https issuer may not send us on to plain http."""
        scheme = urlsplit(endpoint).scheme
        return scheme == "https" or (scheme == "http" and urlsplit(self._url).scheme == "http")


async def _get_json(client: httpx.AsyncClient, url: str) -> object:
    response = await client.get(url, headers={"accept": "application/json"})
    if response.status_code != 200:
        raise ProviderError(f"HTTP {response.status_code}")
    return orjson.loads(response.content)
