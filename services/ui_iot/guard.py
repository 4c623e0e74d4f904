"""Every route says which roles may use it, in one place that is both enforced and documented."""

from collections.abc import Callable, Coroutine
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from services.ui_iot.json_route import JsonRoute
from services.ui_iot.problems import Refused
from services.ui_iot.refusals import Refusal

READERS = ("viewer", "operator", "admin", "auditor")
OPERATORS = ("operator", "admin")
ADMINS = ("admin",)
AUDITORS = ("auditor", "admin")
REPORTERS = ("device", "operator", "admin")

ROLES_MEMBER = "x-pulse-roles"


def allow(roles: tuple[str, ...]) -> dict[str, Any]:
    """For openapi_extra of a route: the roles that may use it and how they show who they are."""
    schemes: list[dict[str, list[str]]] = [{"userToken": []}, {"sessionCookie": []}]
    if "device" in roles:
        schemes.append({"deviceToken": []})
    return {ROLES_MEMBER: list(roles), "security": schemes}


class GuardedRoute(JsonRoute):
    """A route for some roles; one that names none cannot be made. The role is checked before the body is read."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler behind the check."""
        handler = super().get_route_handler()
        roles = frozenset((self.openapi_extra or {})[ROLES_MEMBER])

        async def guarded(request: Request) -> Response:
            attempt = request.scope["pulse.attempt"]
            if request.scope["pulse.principal"].role not in roles:
                refusal = Refusal("forbidden", f"This needs one of the roles {', '.join(sorted(roles))}.")
                await attempt.refuse(refusal)
                raise Refused(refusal)
            await attempt.accept()
            return await handler(request)

        return guarded
