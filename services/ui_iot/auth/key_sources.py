"""Sources of an issuer's keys, and the requests that read its JSON documents."""

import asyncio
from pathlib import Path
from typing import Any

import httpx
import orjson

from services.ui_iot.auth.provider_faults import UNREACHABLE, ProviderError, not_json, unreachable, wrong_status

# Timeout for each of discovery document and keys. Requests with tokens of unknown keys wait for both.
DOCUMENT_SECONDS = 4.0

_BOM = b"\xef\xbb\xbf"


class JwksFile:
    """A JWKS document in a file, which is read at each fetch."""

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


class JwksUrl:
    """A JWKS document at a fixed address."""

    def __init__(self, client: httpx.AsyncClient, url: str) -> None:
        self._client = client
        self._url = url
        self.note: str | None = None
        """A fault of the last document that did not prevent reading it."""

    async def fetch_keys(self) -> object:
        """Return the document. Raises ProviderError."""
        document, self.note = await get_keys(self._client, self._url)
        return document


async def get_json(client: httpx.AsyncClient, url: str) -> tuple[object, str | None]:
    """Return the JSON document at the address, and a fault that did not prevent reading it."""
    try:
        async with asyncio.timeout(DOCUMENT_SECONDS):
            response = await send(client, "GET", url, headers={"accept": "application/json"})
    except TimeoutError:
        advice = "check the address, the network and PULSE_EGRESS_PROXY"
        raise ProviderError(f"no answer within {DOCUMENT_SECONDS:g} s", url=url, advice=advice) from None
    if response.status_code != 200:
        raise wrong_status(response, url)
    return read_json(response, url)


async def get_keys(client: httpx.AsyncClient, url: str) -> tuple[object, str | None]:
    """Return the JWKS document at the address, and a fault that did not prevent reading it."""
    document, note = await get_json(client, url)
    if not isinstance(document, dict) or not isinstance(document.get("keys"), list):
        advice = "check the address of the keys"
        raise ProviderError("HTTP 200, but the JSON has no list of keys", url=url, advice=advice)
    return document, note


async def send(client: httpx.AsyncClient, method: str, url: str, **rest: Any) -> httpx.Response:
    """Return the answer of an identity provider. Raises ProviderError if there is none."""
    try:
        return await client.request(method, url, **rest)
    except httpx.InvalidURL as error:
        raise ProviderError(f"is no address: {error}", url=url) from None
    except UNREACHABLE as error:
        raise unreachable(error, url) from error


def read_json(response: httpx.Response, url: str) -> tuple[object, str | None]:
    """Return the JSON document of an answer, and a fault that did not prevent reading it."""
    body, note = response.content, None
    if body.startswith(_BOM):
        # RFC 8259, section 8.1: a sender must not add a byte order mark, a reader may ignore it.
        body = body.removeprefix(_BOM)
        advice = "it is ignored; remove it from the document"
        note = str(ProviderError(f"HTTP {response.status_code}, the JSON begins with a BOM", url=url, advice=advice))
    try:
        return orjson.loads(body), note
    except ValueError:
        raise not_json(response, url) from None
