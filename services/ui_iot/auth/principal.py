"""The authenticated sender of a request."""

from dataclasses import dataclass

from services.shared.db import Actor


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
