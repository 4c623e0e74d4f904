"""Lets no request in without a caller: whatever is not on the list of open paths needs a valid token."""

from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.shared.audit import AuditBlocked, AuditLogger
from services.shared.metrics import ProcessMetrics
from services.shared.web import PROBE_PATHS, has_path
from services.ui_iot.auth.attempt import Attempt
from services.ui_iot.auth.authenticator import Authenticator
from services.ui_iot.auth.credentials import read_headers
from services.ui_iot.auth.refusals import Refusal
from services.ui_iot.http.problems import blocked_problem, problem, refusal_problem

# /auth/refresh shows a refresh token in its body and audits itself.
OPEN_PATHS: Final = PROBE_PATHS | {"/docs", "/openapi.json", "/auth/refresh"}


class _Settling:
    """Lets an answer out only when the attempt is on record: a route settles it, here what no route answered."""

    def __init__(self, attempt: Attempt, scope: Scope, receive: Receive, send: Send) -> None:
        self._attempt = attempt
        self._scope = scope
        self._receive = receive
        self._send = send
        self._replaced = False

    async def send(self, message: Message) -> None:
        """Pass the message on; an answer that may not leave is replaced."""
        if self._replaced:
            return
        if message["type"] == "http.response.start":
            try:
                await self._attempt.accept(is_routed=False)
            except AuditBlocked:
                self._replaced = True
                await blocked_problem()(self._scope, self._receive, self._send)
                return
        await self._send(message)


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
        headers = read_headers(scope)
        address = self._authenticator.address_of(scope, headers)
        scope["pulse.client_address"] = str(address) if address is not None else None
        scope["pulse.attempt"] = attempt = Attempt(scope, address, audit=self._audit, metrics=self._metrics)
        if headers.upgrade.lower() == "websocket":
            await problem(403, "Pulse opens no websockets.")(scope, receive, send)
            return
        if has_path(scope, OPEN_PATHS):
            await self.app(scope, receive, send)
            return
        result = await self._authenticator.authenticate(headers, address, method=scope["method"])
        if isinstance(result, Refusal):
            await attempt.refuse(result)
            await refusal_problem(result)(scope, receive, send)
            return
        attempt.identify(result)
        scope["pulse.principal"] = result
        try:
            await self.app(scope, receive, _Settling(attempt, scope, receive, send).send)
        finally:
            attempt.leave()
