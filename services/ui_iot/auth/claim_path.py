"""Places of claims in a token, as settings name them: `role`, `realm_access.roles`, `["resource_access", "my.app"]`."""

import re
from dataclasses import dataclass
from typing import Any, Final

import orjson

MOST_NAMES = 10
ABSENT: Final = object()
"""What find() returns where the token has no such claim: null is a value."""

# A dot that no backslash precedes.
_DOT = re.compile(r"(?<!\\)\.")


@dataclass(frozen=True, slots=True)
class ClaimPath:
    """Names to follow from the token's claims to a value.

    literal: the whole setting as the name of one claim, which is tried first, because names may contain dots.
    """

    names: tuple[str, ...]
    literal: str | None = None

    def __str__(self) -> str:
        return self.literal or orjson.dumps(self.names).decode()

    @classmethod
    def parse(cls, text: str) -> "ClaimPath":
        r"""Read the setting's text. Raises ValueError.

        A text with `://` is the name of one claim. Elsewhere a dot separates names, and `\.` is a dot within a name.
        """
        if text.startswith("["):
            return cls(_parse_json(text))
        if "://" in text:
            return cls((text,), text)
        names = tuple(part.replace("\\.", ".") for part in _DOT.split(text))
        if not all(names) or len(names) > MOST_NAMES:
            raise ValueError(f"must be 1 to {MOST_NAMES} names with dots between them")
        return cls(names, text)

    def find(self, claims: dict[str, Any]) -> object:
        """Return the value at this place, or ABSENT."""
        if self.literal is not None and self.literal in claims:
            return claims[self.literal]
        value: object = claims
        for name in self.names:
            if not isinstance(value, dict) or name not in value:
                return ABSENT
            value = value[name]
        return value


def _parse_json(text: str) -> tuple[str, ...]:
    try:
        names = orjson.loads(text)
    except ValueError:
        raise ValueError("must be a JSON array of names when it begins with [") from None
    if not isinstance(names, list) or not 0 < len(names) <= MOST_NAMES:
        raise ValueError(f"must be a JSON array of 1 to {MOST_NAMES} names")
    if not all(isinstance(name, str) and name for name in names):
        raise ValueError("must be a JSON array of names that are not empty")
    return tuple(names)
