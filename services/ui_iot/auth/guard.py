"""Roles and scopes of routes, enforced and documented from one declaration."""

from collections.abc import Callable, Coroutine
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from services.ui_iot.auth.api_keys import SCOPES
from services.ui_iot.auth.refusals import Refusal
from services.ui_iot.auth.request_context import Outcome, context_of
from services.ui_iot.http.json_route import JsonRoute
from services.ui_iot.http.problems import RequestRefused

READERS = ("viewer", "operator", "admin", "auditor")
OPERATORS = ("operator", "admin")
ADMINS = ("admin",)
AUDITORS = ("auditor", "admin")
REPORTERS = ("device", "operator", "admin")

ROLES_MEMBER = "x-pulse-roles"


def allow(roles: tuple[str, ...]) -> dict[str, Any]:
    """Return openapi_extra of a route: the roles that may use it and the security schemes that they have."""
    schemes: list[dict[str, list[str]]] = [{"userToken": []}, {"sessionCookie": []}, {"apiKey": []}]
    if "device" in roles:
        schemes.append({"deviceToken": []})
    return {ROLES_MEMBER: list(roles), "security": schemes}


class GuardedRoute(JsonRoute):
    """A route for some roles. A route without roles raises KeyError when it is made.

    Role and scope are checked before the body is read. The scope is the route's first tag with :read or :write.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the handler behind the checks."""
        handler = super().get_route_handler()
        roles = frozenset((self.openapi_extra or {})[ROLES_MEMBER])

        part = str(self.tags[0]).replace(" ", "-")

        async def guarded(request: Request) -> Response:
            context = context_of(request.scope)
            caller = context.principal
            assert caller is not None, "the route is on an open path"
            scope = f"{part}:{'read' if request.method in ('GET', 'HEAD') else 'write'}"
            refusal = None
            if caller.role not in roles:
                refusal = Refusal("forbidden", f"This needs the role {' or '.join(sorted(roles))}.")
            elif caller.scopes is not None and scope not in caller.scopes:
                refusal = Refusal("forbidden", _explain(scope))
            if refusal is not None:
                await context.settle(refusal)
                raise RequestRefused(refusal)
            await context.settle(Outcome.ADMITTED)
            return await handler(request)

        return guarded


def _explain(scope: str) -> str:
    return f"This needs an API key with the scope {scope}." if scope in SCOPES else "API keys cannot be used here."
