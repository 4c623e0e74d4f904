"""Security headers of every answer.

They are made once, because every request pays for them. An answer costs one look at its own headers.
"""

from collections.abc import Iterable
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

Header = tuple[bytes, bytes]

_ALWAYS: Final[tuple[Header, ...]] = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
# An answer may set its own value, as the page of the documentation does.
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


def headers_for(scheme: str) -> tuple[Header, ...]:
    """Return the headers for an answer over http or https that sets none itself."""
    return _ALL["https" if scheme == "https" else "http"]


class SecureHeaders:
    """A middleware that adds the headers to every answer of an application, errors included."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""

        # The scheme is read with the answer, because the application may set it to https as a trusted proxy says.
        async def secured(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": _complete(message.get("headers", ()), scope.get("scheme", "http"))}
            await send(message)

        await self.app(scope, receive, secured)


def _complete(headers: Iterable[Header], scheme: str) -> list[Header]:
    every = _ALL.get(scheme) or headers_for(scheme)
    for name, _ in headers:
        if name in _NAMES:
            given = {each for each, _ in headers}
            return [*headers, *(header for header in every if header[0] not in given)]
    return [*headers, *every]
