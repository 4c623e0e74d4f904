"""Cleaning of client-supplied values: the result is short text that can be stored and holds no secret.

Most events need no cleaning. One cheap check over all of an event's text decides; only suspicious events are cleaned
value by value.
"""

import math
import re
from collections.abc import Collection, Mapping
from collections.abc import Set as AbstractSet
from functools import lru_cache
from itertools import islice
from typing import Any

LONGEST_MESSAGE = 2000
LONGEST_NAME = 256  # characters; at four bytes each they fit an index entry of at most 2,704 bytes
LONGEST_TENANT = 63
LONGEST_WORD = 64
LONGEST_TEXT = 1024
LONGEST_DETAILS = 8192
DEEPEST = 6
MOST_ITEMS = 50

REDACTED = "[redacted]"

# Every match of the patterns below contains one of these, in lower case.
SUSPECTS = ("=", "cookie", "authori", "bearer", "basic", "eyj", "pdt_", "whsec_", "://")

_SECRET_KEY = re.compile(
    r"token|passw|pwd|secret|cookie|authori[sz]ation|credential|api_?key|(?:^|[_.-])key$", re.IGNORECASE
)
_SECRETS: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"\b(bearer|basic)\s+(?!realm)[\w.~+/=-]{8,}", re.IGNORECASE), rf"\1 {REDACTED}"),
    (re.compile(r"eyJ[\w-]{6,}(?:\.[\w-]*)*"), REDACTED),
    (re.compile(r"\b(?:pdt_|whsec_)[\w+/=-]+"), REDACTED),
    (re.compile(r"://[^/\s@]*@"), f"://{REDACTED}@"),
    # Webhook addresses of Slack and Teams are secrets.
    (
        re.compile(r"(?i)(://[\w.-]*(?:hooks\.slack|webhook\.office|logic\.azure)\.com[:\d]*/)[^\s\"']+"),
        rf"\1{REDACTED}",
    ),
    (re.compile(r"\b((?:set-)?cookie|authorization)\s*:[^\r\n]*", re.IGNORECASE), rf"\1: {REDACTED}"),
    (re.compile(r"((?:token|passwd|password|pwd|secret|key)=)[^\s&;,\"']+", re.IGNORECASE), rf"\1{REDACTED}"),
)


def may_hold_secret(text: str) -> bool:
    """Return whether the text needs a close look; never False for text that clean_text would redact."""
    text = text.lower()
    for suspect in SUSPECTS:  # noqa: SIM110  # a generator would cost twice as much
        if suspect in text:
            return True
    return False


@lru_cache(maxsize=1024)
def names_secret(key: str) -> bool:
    """Return whether values under such a key of details are secret."""
    return _SECRET_KEY.search(key) is not None


def clean_text(text: str, longest: int) -> str:
    """Return the text cut to a length, secrets redacted; controls, bidi marks and lone surrogates are escaped."""
    # Search more text than is kept, so that the cut cannot hide a secret from the patterns.
    text = text[: 2 * longest + 256]
    if may_hold_secret(text):
        for pattern, replacement in _SECRETS:
            text = pattern.sub(replacement, text)
    if not text.isprintable():
        text = "".join(char if char.isprintable() else _escape(char) for char in text[:longest])
    return text if len(text) <= longest else text[: longest - 1] + "…"


def clean_value(value: object, depth: int = 0) -> Any:
    """Return a copy of a JSON-like value that orjson can encode; parts too deep or too long are cut."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return value if -(2**63) <= value < 2**63 else hex(value)[:LONGEST_WORD]
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, Mapping | list | tuple | AbstractSet):
        if depth >= DEEPEST:
            return "…"
        return _clean_mapping(value, depth) if isinstance(value, Mapping) else _clean_items(value, depth)
    return clean_text(say(value), LONGEST_TEXT)


def _clean_items(values: Collection[Any], depth: int) -> list[Any]:
    kept = [clean_value(item, depth + 1) for item in islice(values, MOST_ITEMS)]
    return kept if len(values) <= MOST_ITEMS else [*kept, f"… {len(values) - MOST_ITEMS} more"]


def _clean_mapping(value: Mapping[Any, Any], depth: int) -> dict[str, Any]:
    kept: dict[str, Any] = {}
    for key, item in value.items():
        if len(kept) == MOST_ITEMS:
            kept["…"] = f"{len(value) - MOST_ITEMS} more"
            break
        name = clean_text(say(key), LONGEST_WORD)
        # A boolean or null is no secret, and records whether a token was present.
        secret = names_secret(name) and item is not None and not isinstance(item, bool)
        kept[name] = REDACTED if secret else clean_value(item, depth + 1)
    return kept


def say(value: object) -> str:
    """Return any value as text; bytes as ASCII."""
    if isinstance(value, str):
        return value
    try:
        return ascii(value) if isinstance(value, bytes | bytearray) else str(value)
    except Exception:  # noqa: BLE001  # a foreign __str__ must not cost the event
        return f"<{type(value).__name__}>"


def _escape(char: str) -> str:
    number = ord(char)
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"
