"""The state of one request that middleware, authentication and routes share, and the record of its authentication."""

import contextlib
import time
from dataclasses import dataclass, replace
from enum import Enum, auto
from typing import Annotated, Final

from fastapi import Depends
from starlette.requests import Request
from starlette.types import Scope

from services.shared import tracing
from services.shared.audit import AuditBlocked, AuditEvent, AuditLogger, Facts
from services.shared.metrics import ProcessMetrics
from services.ui_iot.auth.client_address import Address
from services.ui_iot.auth.principal import Principal
from services.ui_iot.auth.refusals import Refusal

LONGEST_PATH: Final = 200
SCOPE_KEY: Final = "pulse.context"
"""The only member of ASGI scopes that Pulse adds."""


class Outcome(Enum):
    """Ends of an authentication that need no further facts."""

    ADMITTED = auto()
    """A route takes the request."""
    UNROUTED = auto()
    """The token is valid, but no route takes the request. It changes nothing, whatever its method is."""
    LIMITED = auto()
    """A limit on requests refused the request. The limit's own audit event counts it."""


@dataclass(frozen=True, slots=True)
class Refreshed:
    """A session that got a new token. principal: None if the token does not prove its user."""

    principal: Principal | None


class RequestContext:
    """Caller, client address and authentication record of one request.

    settle() and abandon() are the only code that records how an authentication ended. The first outcome counts.
    """

    __slots__ = (
        "_audit",
        "_details",
        "_is_settled",
        "_metrics",
        "_scope",
        "_started",
        "address",
        "ip_address",
        "is_on_record",
        "principal",
    )

    def __init__(self, scope: Scope, address: Address | None, *, audit: AuditLogger, metrics: ProcessMetrics) -> None:
        self._started = time.perf_counter()
        self._scope = scope
        self._audit = audit
        self._metrics = metrics
        self._is_settled = False
        # The query is left out: misplaced tokens end up there.
        self._details = {"method": scope["method"][:16], "path": scope["path"][:LONGEST_PATH], **_place_in_trace()}
        self.address = address
        self.ip_address = None if address is None else str(address)
        self.principal: Principal | None = None
        """The authenticated caller. Its route decides whether it may do what it asks for."""
        self.is_on_record = False
        """Whether the request has its own audit row. False if it was aggregated, not awaited or could not be stored."""
        scope[SCOPE_KEY] = self

    async def settle(self, outcome: Outcome | Refusal | Refreshed) -> None:
        """Record how the authentication ended, and return when the event is durable.

        Raises AuditBlocked if an admission or a refresh cannot be recorded. A refusal stands without its event.
        """
        if self._is_settled:
            return
        self._is_settled = True
        match outcome:
            case Refusal():
                self._metrics.auth_failures.labels(outcome.reason).inc()
                with contextlib.suppress(AuditBlocked):
                    self.is_on_record = await self._audit.record(self._failure(outcome))
            case Refreshed():
                event = self._audit.auth.token_refresh(**self._facts(outcome.principal))
                self.is_on_record = await self._audit.record(event)
            case Outcome.ADMITTED:
                self.is_on_record = await self._audit.record(self._success(), read=self._read_kind())
            case Outcome.UNROUTED:
                self.is_on_record = await self._audit.record(self._success(), read="unrouted")
            case Outcome.LIMITED:
                pass

    def abandon(self) -> None:
        """Record, without waiting, an authenticated request that ended without an answer."""
        if not self._is_settled:
            self._is_settled = True
            self._audit.log(self._success(), read=self._read_kind())

    def _success(self) -> AuditEvent:
        facts = self._facts(self.principal)
        if self.principal is not None:
            facts["details"] = {**self._details, "role": self.principal.role}
        return self._audit.auth.success(**facts)

    def _failure(self, refusal: Refusal) -> AuditEvent:
        facts = self._facts(self.principal)
        if self.principal is None:
            facts |= {"tenant_id": refusal.tenant_id, "actor": refusal.actor, "account": refusal.account}
        if refusal.cause is not None:
            facts["details"] = {**self._details, "cause": refusal.cause}
        return self._audit.auth.failure(reason=refusal.reason, **facts)

    def _read_kind(self) -> str | None:
        """Return the operation of a person's read, whose repeats share a row; None if the request may change data."""
        if self._scope["method"] not in ("GET", "HEAD") or self.principal is None or self.principal.role == "device":
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


def context_of(scope: Scope) -> RequestContext:
    """Return the context of a request that passed AuthMiddleware."""
    context: RequestContext = scope[SCOPE_KEY]
    return context


def find_context(scope: Scope) -> RequestContext | None:
    """Return the context of a request, or None if it was answered before AuthMiddleware."""
    return scope.get(SCOPE_KEY)


def _place_in_trace() -> dict[str, str]:
    """Return the request's span, the caller's span and a trace id that the caller sent and Pulse did not adopt."""
    context = tracing.current()
    if context is None:
        return {}
    place = {"span_id": context.span_id}
    if context.parent_span_id is not None:
        place["parent_span_id"] = context.parent_span_id
    if context.foreign_trace_id is not None:
        place["parent_trace_id"] = context.foreign_trace_id
    return place


def _caller(request: Request) -> Principal:
    context = context_of(request.scope)
    assert context.principal is not None, "the route is on an open path"
    return replace(context.principal, ip_address=context.ip_address)


Caller = Annotated[Principal, Depends(_caller)]
