"""The reason why a request was refused, and the status of its answer."""

from dataclasses import dataclass

from services.shared.db import Actor
from services.shared.metrics import AuthFailureReason

_OTHER_STATUS: dict[AuthFailureReason, int] = {"auth_unavailable": 503, "rate_limited": 429, "forbidden": 403}


@dataclass(frozen=True, slots=True)
class Refusal:
    """A refused request. tenant_id and actor are set only if a signature or a secret proved them."""

    reason: AuthFailureReason
    detail: str
    """One sentence for the caller, without any part of the token."""
    tenant_id: str | None = None
    actor: Actor | None = None
    retry_after_seconds: int | None = None
    account: str | None = None
    """The unproven account that the token names. The audit trail stores its pseudonym."""
    cause: AuthFailureReason | None = None
    """For rate_limited: why the token was not accepted; None if it was not checked."""

    @property
    def status(self) -> int:
        """HTTP status of the answer."""
        return _OTHER_STATUS.get(self.reason, 401)
