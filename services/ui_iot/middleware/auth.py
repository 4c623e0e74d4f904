"""Admit no request without a caller: every path that is not on the list of open paths needs a valid token."""

import re
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.shared.audit import AuditBlocked, AuditLogger
from services.shared.metrics import ProcessMetrics
from services.shared.web import PROBE_PATHS, has_path
from services.ui_iot.auth.authenticator import Authenticator
from services.ui_iot.auth.credentials import read_headers
from services.ui_iot.auth.refusals import Refusal
from services.ui_iot.auth.request_context import Outcome, RequestContext
from services.ui_iot.docs_page import DOCS_PATHS
from services.ui_iot.http.problems import blocked_problem, problem, refusal_problem

# /auth/refresh takes a refresh token in its body and settles its own context.
OPEN_PATHS: Final = PROBE_PATHS | DOCS_PATHS | {"/auth/refresh"}


class AuthMiddleware:
    """Authenticates each request and gives it a RequestContext. A request without a caller gets the reason."""

    def __init__(
        self, app: ASGIApp, *, authenticator: Authenticator, audit: AuditLogger, metrics: ProcessMetrics
    ) -> None:
        self.app = app
        self._authenticator = authenticator
        self._audit = audit
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass an authenticated request on; answer any other with the reason."""
        headers = read_headers(scope)
        address = self._authenticator.address_of(scope, headers)
        context = RequestContext(scope, address, audit=self._audit, metrics=self._metrics)
        if headers.upgrade and "websocket" in re.split(r"[\s,]+", headers.upgrade.lower()):
            await problem(403, "Pulse opens no websockets.")(scope, receive, send)
            return
        if has_path(scope, OPEN_PATHS):
            await self.app(scope, receive, send)
            return
        result = await self._authenticator.authenticate(headers, address, method=scope["method"])
        if isinstance(result, Refusal):
            await context.settle(result)
            await refusal_problem(result)(scope, receive, send)
            return
        context.principal = result
        try:
            await self.app(scope, receive, _settling(context, scope, receive, send))
        finally:
            context.abandon()


def _settling(context: RequestContext, scope: Scope, receive: Receive, send: Send) -> Send:
    """Return a send() that settles unrouted requests and holds every answer back until the event is durable."""
    is_replaced = False

    async def settle_and_send(message: Message) -> None:
        nonlocal is_replaced
        if is_replaced:
            return
        if message["type"] == "http.response.start":
            try:
                await context.settle(Outcome.UNROUTED)
            except AuditBlocked:
                is_replaced = True
                await blocked_problem()(scope, receive, send)
                return
        await send(message)

    return settle_and_send
