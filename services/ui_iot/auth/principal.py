"""The authenticated sender of a request."""

import hashlib
from dataclasses import dataclass

from services.shared.db import Actor

_LONGEST_ID = 255
"""Characters that the database keeps of an id."""


def token_mark(claim: object) -> str | None:
    """Return the text by which a token with this jti, sid or session_state is revoked; None if it can have none.

    A number is written in decimal. A longer text than the database keeps is replaced by its hash.
    """
    if isinstance(claim, float) and claim.is_integer():
        claim = int(claim)
    if isinstance(claim, int | float) and not isinstance(claim, bool):
        claim = str(claim)
    if not isinstance(claim, str) or not claim:
        return None
    if len(claim) <= _LONGEST_ID:
        return claim
    return f"sha256:{hashlib.sha256(claim.encode(errors='surrogatepass')).hexdigest()}"


@dataclass(frozen=True, slots=True)
class Grant:
    """Members of a user token that a revocation can name."""

    issued_at: float
    """Seconds since 1970."""
    token_id: str | None = None
    sessions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Principal:
    """A user of a tenant, one of its devices, or a machine with an API key."""

    tenant_id: str
    role: str
    """viewer, operator, admin, auditor or device."""
    actor: Actor
    is_gateway: bool = False
    """The device may report readings of the tenant's other devices."""
    grant: Grant | None = None
    """Revocable members of the user token; None for devices and API keys."""
    scopes: frozenset[str] | None = None
    """Scopes of an API key. None: everything that the role allows."""
    ip_address: str | None = None
    """Client address of this request. Cached principals have none."""
