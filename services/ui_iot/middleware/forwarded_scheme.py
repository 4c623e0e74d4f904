"""The scheme that a client used, as far as a trusted proxy reports it."""

from starlette.types import ASGIApp, Receive, Scope, Send

from services.ui_iot.auth.client_address import ClientAddress


class ForwardedScheme:
    """Sets the scheme to https if a trusted proxy terminated TLS (X-Forwarded-Proto)."""

    def __init__(self, app: ASGIApp, addresses: ClientAddress) -> None:
        self.app = app
        self._addresses = addresses

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        client = scope.get("client")
        if self._addresses.trusts(client[0] if client else None) and _last_is_https(scope):
            # In place, because an outer layer adds the headers for browsers and needs the scheme.
            scope["scheme"] = "https"
        await self.app(scope, receive, send)


def _last_is_https(scope: Scope) -> bool:
    """Return whether the nearest proxy received https. A client may have written the entries left of the last one."""
    lines = [value for name, value in scope["headers"] if name == b"x-forwarded-proto"]
    return bool(lines) and lines[-1].rpartition(b",")[2].strip().lower() == b"https"
