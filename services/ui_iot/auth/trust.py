"""Conditions for the tokens of one issuer."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
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


LONGEST_TOKEN_BYTES = 8192
LONGEST_TOKEN_SECONDS = 86_400


@dataclass(frozen=True, slots=True)
class Trust:
    """Conditions for the tokens of one issuer, and the places where they name tenant and role."""

    issuer: str
    audiences: frozenset[str] = frozenset({"pulse"})
    client_ids: frozenset[str] = frozenset()
    """Clients that tokens must be issued to; empty: any client, and no token without an audience."""
    tenant_claim: ClaimPath = field(default_factory=lambda: ClaimPath.parse("tenant_id"))
    role_claim: ClaimPath = field(default_factory=lambda: ClaimPath.parse("role"))
    role_map: Mapping[str, str] | None = None
    """Pulse's role by the provider's; None: the provider uses Pulse's names."""
    tenants: Mapping[str, str] | None = None
    """Tenants that the issuer may speak for, by the value of the claim; None: every tenant, by its name."""
    strict_type: bool = False
    max_token_bytes: int = LONGEST_TOKEN_BYTES
    max_token_seconds: float = LONGEST_TOKEN_SECONDS
    """Longest time from iat to exp."""
