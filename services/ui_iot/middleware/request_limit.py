"""Limits on the requests of each principal and each tenant.

The header fields are those of draft-ietf-httpapi-ratelimit-headers. The layer follows authentication, which limits the
failures of requests without a caller. Each request costs about a microsecond for the decision and one for the fields.
"""

import time

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.ui_iot.auth.request_context import Outcome, find_context
from services.ui_iot.http.problems import problem
from services.ui_iot.limits.limit_refusals import LimitRefusals
from services.ui_iot.limits.request_buckets import WINDOW_SECONDS, Buckets, wait_seconds

LIMIT = "requests"


class RequestLimitMiddleware:
    """Answers 429 to a request above a limit before its body is read."""

    def __init__(self, app: ASGIApp, *, per_principal: int, per_tenant: int, refusals: LimitRefusals) -> None:
        self.app = app
        self._principals: Buckets[tuple[str, str, str]] = Buckets(per_principal)
        self._tenants: Buckets[str] = Buckets(per_tenant)
        self._refusals = refusals
        policies = {"principal": per_principal, "tenant": per_tenant}
        self._policy = (
            b"ratelimit-policy",
            ", ".join(f'"{name}";q={most};w={WINDOW_SECONDS:.0f}' for name, most in policies.items() if most).encode(),
        )
        self._is_off = not (per_principal or per_tenant)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on within the limits."""
        context = find_context(scope)
        if context is None or context.principal is None or self._is_off:
            await self.app(scope, receive, send)
            return
        now = time.monotonic()
        actor, tenant_id = context.principal.actor, context.principal.tenant_id
        key = (tenant_id, actor.type, actor.id)
        own = self._principals.full_at(key, now)
        whole = self._tenants.full_at(tenant_id, now)
        if own - now > WINDOW_SECONDS or whole - now > WINDOW_SECONDS:
            self._refusals.count(tenant_id, LIMIT, self._exceeded(own - now)[2])
            # The limit's own event counts the request. An event for each request would let a caller flood the trail.
            await context.settle(Outcome.LIMITED)
            await self._problem(own - now, whole - now)(scope, receive, send)
            return
        self._principals.take(key, own)
        self._tenants.take(tenant_id, whole)

        async def send_with_state(message: Message) -> None:
            if message["type"] == "http.response.start":
                fields = (self._policy, (b"ratelimit", self._state(own - now, whole - now)))
                message = {**message, "headers": [*message.get("headers", ()), *fields]}
            await send(message)

        await self.app(scope, receive, send_with_state)

    def _state(self, own: float, whole: float) -> bytes:
        """Return the requests left within each limit, and the seconds until each bucket is full again."""
        if not self._tenants.per_minute:
            return b'"principal";r=%d;t=%d' % (self._principals.remaining(own), own + 1)
        if not self._principals.per_minute:
            return b'"tenant";r=%d;t=%d' % (self._tenants.remaining(whole), whole + 1)
        left, left_of_whole = self._principals.remaining(own), self._tenants.remaining(whole)
        return b'"principal";r=%d;t=%d, "tenant";r=%d;t=%d' % (left, own + 1, left_of_whole, whole + 1)

    def _exceeded(self, own: float) -> tuple[str, str, int]:
        """Return the owner, the setting and the value of the limit that refused a request."""
        if own > WINDOW_SECONDS:
            return "One user or device", "PULSE_REQUESTS_PER_PRINCIPAL", self._principals.per_minute
        return "One tenant", "PULSE_REQUESTS_PER_TENANT", self._tenants.per_minute

    def _problem(self, own: float, whole: float) -> Response:
        owner, setting, most = self._exceeded(own)
        return problem(
            429,
            f"{owner} may send {most} requests in a minute. The operator of Pulse raises the limit: {setting}.",
            headers={
                "Retry-After": str(wait_seconds(max(own, whole))),
                "RateLimit-Policy": self._policy[1].decode(),
                "RateLimit": self._state(own, whole).decode(),
            },
            reason="limit_reached",
            limit=LIMIT,
            value=most,
            setting=setting,
        )
