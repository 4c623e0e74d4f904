"""Why a request was turned away: a closed list that is a metric label, an audit detail and a field of the answer."""

from dataclasses import dataclass
from typing import Literal

from services.shared.db import Actor

Reason = Literal[
    "missing_token",
    "invalid_token",
    "token_too_large",
    "expired",
    "revoked",
    "invalid_claims",
    "unknown_key",
    "auth_unavailable",
    "rate_limited",
    "forbidden",
]

STATUS: dict[Reason, int] = {
    "missing_token": 401,
    "invalid_token": 401,
    "token_too_large": 401,
    "expired": 401,
    "revoked": 401,
    "invalid_claims": 401,
    "unknown_key": 401,
    "auth_unavailable": 503,
    "rate_limited": 429,
    "forbidden": 403,
}


@dataclass(frozen=True, slots=True)
class Refusal:
    """A request that is not let in. tenant_id and actor are set only where a signature or a secret proved them."""

    reason: Reason
    detail: str
    """One sentence for the caller, without anything of the token."""
    tenant_id: str | None = None
    actor: Actor | None = None
    retry_after_seconds: int | None = None
    account: str | None = None
    """Whom the token claims to belong to, unproven: for the audit trail, which keeps a pseudonym of it."""
    cause: Reason | None = None
    """Of a rate_limited refusal: why the token was not accepted; None when it was not checked."""
