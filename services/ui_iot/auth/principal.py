"""The sender of a request, once it is proven."""

from dataclasses import dataclass

from services.shared.db import Actor


@dataclass(frozen=True, slots=True)
class Grant:
    """What identifies one user token, by which it can be revoked."""

    issued_at: float
    """Seconds since 1970."""
    token_id: str | None = None
    sessions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Principal:
    """A user of a tenant, one of its devices, or a machine with an API key."""

    tenant_id: str
    role: str
    """viewer, operator, admin, auditor, or device."""
    actor: Actor
    is_gateway: bool = False
    """Whether a device may report readings of the tenant's other devices."""
    grant: Grant | None = None
    """The user token that was shown."""
    scopes: frozenset[str] | None = None
    """Parts of the API that an API key may use; None: everything that the role allows."""
    ip_address: str | None = None
    """Where this one request comes from; not part of what is remembered."""
