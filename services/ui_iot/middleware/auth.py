"""Lets no request in without a caller: whatever is not on the list of open paths needs a valid token."""

from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

from services.shared.audit import AuditLogger
from services.shared.metrics import ProcessMetrics
from services.ui_iot.attempt import Attempt
from services.ui_iot.authenticator import Authenticator
from services.ui_iot.client_address import Address
from services.ui_iot.problems import refusal_problem
from services.ui_iot.refusals import Refusal

PROBE_PATHS: Final = frozenset(("/metrics", "/livez", "/healthz", "/readyz", "/health"))
# /auth/refresh shows a refresh token in its body and audits itself.
OPEN_PATHS: Final = PROBE_PATHS | {"/docs", "/docs/oauth2-redirect", "/openapi.json", "/auth/refresh"}


class AuthMiddleware:
    """Finds the caller, or answers with the reason why there is none; each attempt is audited once."""

    def __init__(
        self, app: ASGIApp, *, authenticator: Authenticator, audit: AuditLogger, metrics: ProcessMetrics
    ) -> None:
        self.app = app
        self._authenticator = authenticator
        self._audit = audit
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on with pulse.principal, pulse.attempt and pulse.client_address in its scope."""
        if scope["type"] == "websocket":
            # Closing before accepting is a 403: there is no websocket that anybody may open.
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        address = self._authenticator.address_of(scope)
        scope["pulse.client_address"] = str(address) if address is not None else None
        if scope["path"] in OPEN_PATHS:
            scope["pulse.attempt"] = Attempt(scope, address, audit=self._audit, metrics=self._metrics)
            await self.app(scope, receive, send)
            return
        await self._let_in(scope, receive, send, address)

    async def _let_in(self, scope: Scope, receive: Receive, send: Send, address: Address | None) -> None:
        attempt = Attempt(scope, address, audit=self._audit, metrics=self._metrics)
        result = await self._authenticator.authenticate(scope, address)
        if isinstance(result, Refusal):
            attempt.refuse(result)
            await refusal_problem(result)(scope, receive, send)
            return
        attempt.identify(result)
        scope["pulse.principal"] = result
        scope["pulse.attempt"] = attempt
        try:
            await self.app(scope, receive, send)
        finally:
            # A route has settled it; what no route answered was let in all the same.
            attempt.accept()
