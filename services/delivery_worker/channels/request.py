"""One POST and its outcome, with texts that are safe to store."""

import html
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from urllib.parse import unquote_plus

import httpx

from services.delivery_worker.channels.outcome import Outcome, Verdict, classify, classify_error, parse_retry_after

_LONGEST_REASON = 300
_LONGEST_ANSWER_BYTES = 4096
_TELLING_LETTERS = 8
_ESCAPE = re.compile(r"\\(?:u00|x)([0-9a-fA-F]{2})")

Judge = Callable[[int, str], Verdict | None]


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts of a request."""

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
    """Send the request once. judge: maps status and text to a verdict, or to None to follow the status."""
    try:
        response = await client.post(parts.url, content=parts.body, headers=dict(parts.headers))
    except (httpx.TransportError, httpx.InvalidURL) as error:
        return classify_error(error, said=tell(str(error), secrets))
    text = _beginning(response.content).decode("utf-8", "replace")
    return classify(
        response.status_code,
        said=tell(text, secrets),
        retry_after_seconds=parse_retry_after(response.headers.get("retry-after"), sent_at),
        verdict=judge(response.status_code, text.strip()),
    )


def _beginning(content: bytes) -> bytes:
    """Return the beginning of a long answer up to a blank, because half of a secret would not be masked."""
    beginning = content[:_LONGEST_ANSWER_BYTES]
    return beginning if len(content) <= _LONGEST_ANSWER_BYTES else beginning.rpartition(b" ")[0]


def _pieces_of(secret: str) -> Iterator[str]:
    """Yield each run of letters that reveals a part of the secret, in lower case. Plain words reveal nothing."""
    # The scheme and host of an address are public. Its other parts are listed as secrets themselves.
    letters = 0 if "://" in secret else len(secret)
    for first in range(letters - _TELLING_LETTERS + 1):
        piece = secret[first : first + _TELLING_LETTERS]
        if any(character.isdigit() or character.isupper() for character in piece):
            yield piece.casefold()


def _plain_forms(text: str) -> Iterator[str]:
    for form in (
        text,
        unquote_plus(text),
        html.unescape(text),
        _ESCAPE.sub(lambda found: chr(int(found[1], 16)), text),
    ):
        folded = form.casefold()
        yield folded
        yield "".join(character for character in folded if character.isprintable() and character not in " \\")


def tell(text: str, secrets: Sequence[str]) -> str:
    """Return the text as one short printable line in which secrets are masked.

    A text with a secret in another form (case, escapes, percent-encoding), or with a part of a secret, is withheld.
    """
    for secret in secrets:
        text = text.replace(secret, "***")
    telling = {secret.casefold() for secret in secrets if not (secret.isalpha() and secret.islower())}
    telling.update(piece for secret in secrets for piece in _pieces_of(secret))
    if any(secret in plain for plain in _plain_forms(text) for secret in telling):
        return "(withheld: it repeats a part of the address or secret)"
    line = " ".join("".join(character if character.isprintable() else " " for character in text).split())
    return line if len(line) <= _LONGEST_REASON else line[: _LONGEST_REASON - 1] + "…"
