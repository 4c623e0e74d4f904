"""One attempt to be let in, which ends in exactly one audit event, however the request goes on."""

import contextlib
import time

from starlette.types import Scope

from services.shared import tracing
from services.shared.audit import AuditBlocked, AuditEvent, AuditLogger, Facts
from services.shared.metrics import ProcessMetrics
from services.ui_iot.auth.principal import Principal
from services.ui_iot.auth.refusals import Refusal
from services.ui_iot.http.client_address import Address

LONGEST_PATH = 200


class Attempt:
    """Settled once, by the first who knows how it ended; later calls change nothing.

    Each call returns when the event is durable, so that nobody hears of a decision that could be missing in the trail.
    """

    __slots__ = (
        "_audit",
        "_details",
        "_metrics",
        "_principal",
        "_scope",
        "_settled",
        "_started",
        "address",
        "on_record",
    )

    def __init__(self, scope: Scope, address: Address | None, *, audit: AuditLogger, metrics: ProcessMetrics) -> None:
        self._started = time.perf_counter()
        self._scope = scope
        self.address = address
        self._audit = audit
        self._metrics = metrics
        self._principal: Principal | None = None
        self._settled = False
        self.on_record = False
        """Whether a row of its own tells of it: not of one of a flood, of one not waited for or without a place."""
        # The query is left out: it is where tokens end up that do not belong there.
        self._details = {"method": scope["method"][:16], "path": scope["path"][:LONGEST_PATH], **_place_in_trace()}

    def identify(self, principal: Principal) -> None:
        """Note who it is; whether that is enough is decided where the route is known."""
        self._principal = principal

    async def accept(self, *, is_routed: bool = True) -> None:
        """The caller is let in. Raises AuditBlocked when that cannot be put on record, and then it is not.

        is_routed: whether a route takes the request. One that none takes changes nothing, whatever its method is.
        """
        event = self._acceptance()
        if event is not None:
            kind = self._read_kind() if is_routed else "unrouted"
            self.on_record = await self._audit.record(event, read=kind)

    async def refresh(self, principal: Principal | None) -> None:
        """The caller gets a new token; None when the token does not say whose it is. Raises AuditBlocked."""
        if self._settled:
            return
        self._settled = True
        self.on_record = await self._audit.record(self._audit.auth.token_refresh(**self._facts(principal)))

    async def refuse(self, refusal: Refusal) -> None:
        """The caller is turned away, on record or not: nobody gains anything by it."""
        if self._settled:
            return
        self._settled = True
        self._metrics.auth_failures.labels(refusal.reason).inc()
        facts = self._facts(self._principal)
        if self._principal is None:
            facts |= {"tenant_id": refusal.tenant_id, "actor": refusal.actor, "account": refusal.account}
        if refusal.cause is not None:
            facts["details"] = {**self._details, "cause": refusal.cause}
        with contextlib.suppress(AuditBlocked):
            self.on_record = await self._audit.record(self._audit.auth.failure(reason=refusal.reason, **facts))

    def drop(self) -> None:
        """Settle the attempt without an event of its own: a limit refused the request, and its event counts that."""
        self._settled = True

    def leave(self) -> None:
        """The request ended without an answer; what was not settled is put on record without waiting."""
        event = self._acceptance()
        if event is not None:
            self._audit.log(event, read=self._read_kind())

    def _acceptance(self) -> AuditEvent | None:
        if self._settled or self._principal is None:
            return None
        self._settled = True
        facts = self._facts(self._principal)
        facts["details"] = {**self._details, "role": self._principal.role}
        return self._audit.auth.success(**facts)

    def _read_kind(self) -> str | None:
        """Return the operation of a person's read, whose repeats share a row; None for what may change something."""
        if self._scope["method"] not in ("GET", "HEAD") or self._principal is None or self._principal.role == "device":
            return None
        return getattr(self._scope.get("endpoint"), "__name__", "unmatched")

    def _facts(self, principal: Principal | None) -> Facts:
        return {
            "tenant_id": principal.tenant_id if principal else None,
            "actor": principal.actor if principal else None,
            "ip_address": self.address,
            "duration_ms": (time.perf_counter() - self._started) * 1000,
            "details": self._details,
        }


def _place_in_trace() -> dict[str, str]:
    """The request's span, and what the caller said of its own."""
    context = tracing.current()
    if context is None:
        return {}
    place = {"span_id": context.span_id}
    if context.parent_span_id is not None:
        place["parent_span_id"] = context.parent_span_id
    if context.foreign_trace_id is not None:
        place["parent_trace_id"] = context.foreign_trace_id
    return place
