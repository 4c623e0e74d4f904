"""Conditions for the tokens of one issuer."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from services.ui_iot.auth.claim_path import ClaimPath

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
