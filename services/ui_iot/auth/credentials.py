"""Credentials of a request: a bearer token in its header, or one in the session cookie."""

from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.types import Scope

from services.ui_iot.auth.refusals import Refusal

COOKIE = "pulse_session"
_PORTS = {"http": 80, "https": 443}
_SAFE_METHODS = frozenset(("GET", "HEAD", "OPTIONS", "TRACE"))

_MISSING = Refusal("missing_token", "Send a token: Authorization: Bearer …")
_AMBIGUOUS = Refusal("invalid_token", "The request shows more than one token.")
_FOREIGN = Refusal("forbidden", "A request with the session cookie must come from a page of this site.")


@dataclass(frozen=True, slots=True)
class Headers:
    """The headers that authentication reads. A header with several lines is a tuple."""

    authorization: tuple[str, ...]
    cookie: tuple[str, ...]
    forwarded_for: tuple[str, ...]
    host: str
    origin: str | None
    fetch_site: str | None
    scheme: str = "http"
    """http or https, as the client sent the request."""
    upgrade: str = ""


def read_headers(scope: Scope) -> Headers:
    """Return the request's headers, read in one pass."""
    found: dict[bytes, list[str]] = {}
    for name, value in scope["headers"]:
        if name in _NAMES:
            found.setdefault(name, []).append(value.decode("latin-1"))
    return Headers(
        authorization=tuple(found.get(b"authorization", ())),
        cookie=tuple(found.get(b"cookie", ())),
        forwarded_for=tuple(found.get(b"x-forwarded-for", ())),
        host=next(iter(found.get(b"host", ())), ""),
        origin=next(iter(found.get(b"origin", ())), None),
        fetch_site=next(iter(found.get(b"sec-fetch-site", ())), None),
        upgrade=next(iter(found.get(b"upgrade", ())), ""),
        scheme=scope.get("scheme", "http"),
    )


_NAMES = frozenset((b"authorization", b"cookie", b"x-forwarded-for", b"host", b"origin", b"sec-fetch-site", b"upgrade"))


def find_token(headers: Headers, method: str) -> str | Refusal:
    """Return the request's token. The header wins over the cookie, because browsers add the cookie by themselves."""
    if headers.authorization:
        if len(headers.authorization) > 1:
            return _AMBIGUOUS
        scheme, _, token = headers.authorization[0].strip().partition(" ")
        return token.strip() if scheme.lower() == "bearer" and token.strip() else _MISSING
    sessions = {value for line in headers.cookie for value in _cookies(line)}
    if not sessions:
        return _MISSING
    if len(sessions) > 1:
        # Another host of the same domain can set a cookie with this name.
        return _AMBIGUOUS
    if method not in _SAFE_METHODS and not _is_same_site(headers):
        return _FOREIGN
    return sessions.pop()


def _cookies(line: str) -> list[str]:
    pairs = (part.strip().partition("=") for part in line.split(";"))
    return [value.strip('"') for name, _, value in pairs if name == COOKIE and value]


def _is_same_site(headers: Headers) -> bool:
    """Return whether a page of this site sent the request. Browsers let no page forge either header.

    Scheme, name and port must be equal: a page of http://our.name must not act at https://our.name.
    """
    if headers.fetch_site is not None:
        return headers.fetch_site == "same-origin"
    if headers.origin is None or not headers.host:
        return False
    return _origin(headers.origin) == _origin(f"{headers.scheme}://{headers.host}") is not None


def _origin(text: str) -> tuple[str, str, int] | None:
    """Return scheme, name and port of an origin, or None if the text is no origin."""
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        return None
    is_plain = not (parts.path or parts.query or parts.fragment or "@" in parts.netloc)
    if not is_plain or parts.scheme not in _PORTS or not parts.hostname:
        return None
    return parts.scheme, parts.hostname, _PORTS[parts.scheme] if port is None else port
