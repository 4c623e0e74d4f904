"""Headers of every answer that tell browsers what not to do with it.

Every request pays for them, so they are made once, and an answer costs one look at its own headers.
"""

from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

Header = tuple[bytes, bytes]

_ALWAYS: Final[tuple[Header, ...]] = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
# An answer may have its own, such as the page of the documentation.
_UNLESS_GIVEN: Final[tuple[Header, ...]] = (
    (b"cache-control", b"no-store"),
    (
        b"content-security-policy",
        b"default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    ),
)
_NAMES: Final = frozenset(name for name, _ in _UNLESS_GIVEN)
_ENCRYPTED: Final[tuple[Header, ...]] = ((b"strict-transport-security", b"max-age=31536000"),)
_ALL: Final = {"http": (*_ALWAYS, *_UNLESS_GIVEN), "https": (*_ALWAYS, *_UNLESS_GIVEN, *_ENCRYPTED)}
_STARTS: Final = frozenset(("http.response.start", "websocket.http.response.start"))
_DENIAL: Final = "websocket.http.response"


def headers_for(scheme: str) -> tuple[Header, ...]:
    """Return the headers of an answer over http or https that has none of its own."""
    return _ALL["https" if scheme in ("https", "wss") else "http"]


class SecureHeaders:
    """Adds the headers to every answer of an application, errors included."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        can_deny = scope["type"] == "websocket" and _DENIAL in scope.get("extensions", ())
        accepted = False

        async def secured(message: Message) -> None:
            nonlocal accepted
            kind = message["type"]
            if kind in _STARTS:
                # The scheme is read now: the application may learn from a proxy that it is https.
                await send({**message, "headers": _complete(message.get("headers", ()), scope["scheme"])})
            elif kind == "websocket.close" and can_deny and not accepted:
                await send({"type": f"{_DENIAL}.start", "status": 403, "headers": list(headers_for(scope["scheme"]))})
                await send({"type": f"{_DENIAL}.body", "body": b""})
            else:
                accepted = accepted or kind == "websocket.accept"
                await send(message)

        await self.app(scope, receive, secured)


def _complete(headers: "list[Header]", scheme: str) -> list[Header]:
    every = headers_for(scheme)
    given = _NAMES.intersection(name for name, _ in headers)
    if not given:
        return [*headers, *every]
    # Starlette writes names in lower case; other spellings would only repeat a header.
    return [*headers, *(header for header in every if header[0] not in given)]
