"""Conditions for the tokens of one issuer, and the paths of claims in them."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

MOST_NAMES = 10
ABSENT: Final = object()
"""Result of find() for a missing claim, because null is a value."""

# A dot without a backslash before it.
_DOT = re.compile(r"(?<!\\)\.")


@dataclass(frozen=True, slots=True)
class ClaimPath:
    """A path of names from the token's claims to a value: `role`, `realm_access.roles`, `["resource", "my.app"]`.

    literal: the whole setting as the name of one claim. It is tried first, because names may contain dots.
    """

    names: tuple[str, ...]
    literal: str | None = None

    def __str__(self) -> str:
        return self.literal or orjson.dumps(self.names).decode()

    @classmethod
    def parse(cls, text: str) -> "ClaimPath":
        r"""Return the path in the text of a setting. Raises ValueError.

        A text with `://` is the name of one claim. Otherwise a dot separates names, and `\.` is a dot within a name.
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
        """Return the value at this path, or ABSENT."""
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
    """Conditions for the tokens of one issuer, and the claims with tenant and role."""

    issuer: str
    audiences: frozenset[str] = frozenset({"pulse"})
    client_ids: frozenset[str] = frozenset()
    """Clients that tokens must be issued to. Empty: any client, but a token must have an audience."""
    tenant_claim: ClaimPath = field(default_factory=lambda: ClaimPath.parse("tenant_id"))
    role_claim: ClaimPath = field(default_factory=lambda: ClaimPath.parse("role"))
    role_map: Mapping[str, str] | None = None
    """Map from the provider's roles to Pulse's. None: the provider uses Pulse's names."""
    tenants: Mapping[str, str] | None = None
    """Map from values of the claim to the tenants that the issuer may name. None: every tenant, by its name."""
    strict_type: bool = False
    max_token_bytes: int = LONGEST_TOKEN_BYTES
    max_token_seconds: float = LONGEST_TOKEN_SECONDS
    """Maximum time from iat to exp."""
