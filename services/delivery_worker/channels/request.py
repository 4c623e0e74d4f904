"""One POST and its outcome, in words that are safe to store."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import httpx

from services.delivery_worker.channels.outcome import Outcome, Verdict, classify, classify_error, parse_retry_after

_LONGEST_REASON = 300
_LONGEST_ANSWER_BYTES = 4096

Judge = Callable[[int, str], Verdict | None]


@dataclass(frozen=True, slots=True)
class Parts:
    """A request before it is sent."""

    url: str = field(repr=False)
    body: bytes
    headers: Mapping[str, str]


def _no_opinion(_status_code: int, _text: str) -> None:
    return None


async def post(
    client: httpx.AsyncClient,
    parts: Parts,
    *,
    secrets: Sequence[str],
    sent_at: datetime,
    judge: Judge = _no_opinion,
) -> Outcome:
    """Send the request once. judge: the channel's verdict on status and text of an answer; None follows the status."""
    try:
        response = await client.post(parts.url, content=parts.body, headers=dict(parts.headers))
    except (httpx.TransportError, httpx.InvalidURL) as error:
        return classify_error(error, said=tell(str(error), secrets))
    text = response.content[:_LONGEST_ANSWER_BYTES].decode("utf-8", "replace")
    return classify(
        response.status_code,
        said=tell(text, secrets),
        retry_after_seconds=parse_retry_after(response.headers.get("retry-after"), sent_at),
        verdict=judge(response.status_code, text.strip()),
    )


def tell(text: str, secrets: Sequence[str]) -> str:
    """Return the text in one short printable line, with each secret in it blotted out."""
    for secret in secrets:
        text = text.replace(secret, "***")
    line = " ".join("".join(character if character.isprintable() else " " for character in text).split())
    return line if len(line) <= _LONGEST_REASON else line[: _LONGEST_REASON - 1] + "…"
