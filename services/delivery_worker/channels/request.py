"""One POST and what became of it, in words that are safe to store."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import httpx

from services.delivery_worker.channels.outcome import Outcome, Refused, Retry, classify, parse_retry_after
from services.shared.http_client import AddressRefused

_LONGEST_REASON = 300


@dataclass(frozen=True, slots=True)
class Parts:
    """A request before it is sent."""

    url: str = field(repr=False)
    body: bytes
    headers: Mapping[str, str]


async def post(client: httpx.AsyncClient, parts: Parts, *, secrets: Sequence[str], sent_at: datetime) -> Outcome:
    """Send the request once; whatever the receiver says is told without the secrets."""
    try:
        response = await client.post(parts.url, content=parts.body, headers=dict(parts.headers))
    except AddressRefused as error:
        return Refused(str(error))
    except httpx.InvalidURL:
        return Refused("the URL is not valid")
    except httpx.TransportError as error:
        return Retry(tell(str(error), secrets) or type(error).__name__)
    return classify(
        response.status_code,
        said=tell(response.content[:4096].decode("utf-8", "replace"), secrets),
        retry_after_seconds=parse_retry_after(response.headers.get("retry-after"), sent_at),
    )


def tell(text: str, secrets: Sequence[str]) -> str:
    """The text in one short printable line, each secret in it blotted out."""
    for secret in secrets:
        text = text.replace(secret, "***")
    line = " ".join("".join(character if character.isprintable() else " " for character in text).split())
    return line if len(line) <= _LONGEST_REASON else line[: _LONGEST_REASON - 1] + "…"
