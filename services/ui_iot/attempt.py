"""One attempt to be let in, which ends in exactly one audit event, however the request goes on."""

import time

from starlette.types import Scope

from services.shared.audit import AuditLogger
from services.shared.metrics import ProcessMetrics
from services.ui_iot.client_address import Address
from services.ui_iot.principal import Principal
from services.ui_iot.refusals import Refusal

LONGEST_PATH = 200


class Attempt:
    """Settled once, by the first who knows how it ended; later calls change nothing."""

    __slots__ = ("_audit", "_details", "_metrics", "_principal", "_settled", "_started", "address")

    def __init__(self, scope: Scope, address: Address | None, *, audit: AuditLogger, metrics: ProcessMetrics) -> None:
        self._started = time.perf_counter()
        self.address = address
        self._audit = audit
        self._metrics = metrics
        self._principal: Principal | None = None
        self._settled = False
        # The query is left out: it is where tokens end up that do not belong there.
        self._details = {"method": scope["method"][:16], "path": scope["path"][:LONGEST_PATH]}

    def identify(self, principal: Principal) -> None:
        """Note who it is; whether that is enough is decided where the route is known."""
        self._principal = principal

    def accept(self) -> None:
        """The caller was let in."""
        if self._settled or self._principal is None:
            return
        self._settled = True
        self._audit.auth_success(
            tenant_id=self._principal.tenant_id,
            actor=self._principal.actor,
            ip_address=self.address,
            duration_ms=self._milliseconds(),
            details={**self._details, "role": self._principal.role},
        )

    def refresh(self, principal: Principal | None) -> None:
        """The caller got a new token; None when the token does not say whose it is."""
        if self._settled:
            return
        self._settled = True
        self._audit.auth_token_refresh(
            tenant_id=principal.tenant_id if principal else None,
            actor=principal.actor if principal else None,
            ip_address=self.address,
            duration_ms=self._milliseconds(),
            details=self._details,
        )

    def refuse(self, refusal: Refusal) -> None:
        """The caller was turned away."""
        if self._settled:
            return
        self._settled = True
        self._metrics.auth_failures.labels(refusal.reason).inc()
        known = self._principal
        self._audit.auth_failure(
            reason=refusal.reason,
            tenant_id=known.tenant_id if known else refusal.tenant_id,
            actor=known.actor if known else refusal.actor,
            ip_address=self.address,
            duration_ms=self._milliseconds(),
            details=self._details,
        )

    def _milliseconds(self) -> float:
        return (time.perf_counter() - self._started) * 1000
