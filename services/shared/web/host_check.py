"""Check of the Host header.

A web page can make its own name resolve to this machine (DNS rebinding). Its scripts may then read the answers, because
they come from the page's own origin. Such a request has the page's name in Host.
"""

import socket
from collections.abc import Iterable
from functools import lru_cache
from ipaddress import ip_address
from typing import Final, Self

import orjson
from starlette.types import ASGIApp, Receive, Scope, Send

from services.shared import tracing
from services.shared.destination import is_address

ANY: Final = "*"
# No public name server resolves these names (RFC 6761, RFC 6762, reserved by ICANN), so no stranger can choose their
# address.
_LOCAL_DOMAINS: Final = (".localhost", ".local", ".internal")
_LONGEST_NAME: Final = 255


class Hosts:
    """The names that a process answers to. Every IP address is included: probes use them, and none can be rebound."""

    def __init__(self, names: Iterable[str], *, local_names: bool) -> None:
        listed = [name.lower().rstrip(".") for name in names]
        self._any = ANY in listed
        self._names = frozenset(name for name in listed if not name.startswith("."))
        self._domains = tuple(name for name in listed if name.startswith("."))
        self._local_names = local_names
        # One cache per object: two lists of names in one process must not mix.
        self._is_known = lru_cache(maxsize=1024)(self._decide)

    @classmethod
    def of(cls, allowed: Iterable[str], *bound: str | None) -> Self:
        """Return the names of a process that is bound to these addresses or names.

        allowed: the setting. Without it, a process that other machines reach answers to local network names.
        """
        allowed = tuple(allowed)
        own = (socket.gethostname(), "localhost", *filter(None, bound))
        only_here = all(map(_is_loopback, filter(None, bound)))
        return cls((*allowed, *own), local_names=not allowed and not only_here)

    def admits(self, host: bytes) -> bool:
        """Return whether a Host header names this server."""
        return self._any or (len(host) <= _LONGEST_NAME and self._is_known(host))

    def _decide(self, host: bytes) -> bool:
        name = _name_of(host.decode("latin-1"))
        if name is None:
            return False
        if name in self._names or name.endswith((".localhost", *self._domains)) or is_address(name):
            return True
        return self._local_names and ("." not in name or name.endswith(_LOCAL_DOMAINS))


class HostCheck:
    """A middleware that answers 421 to a request for another server."""

    def __init__(self, app: ASGIApp, hosts: Hosts) -> None:
        self.app = app
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on. A request without Host is accepted: browsers always send one."""
        for name, value in scope.get("headers", ()):
            if name == b"host":
                if self._hosts.admits(value):
                    break
                await _refuse(send)
                return
        await self.app(scope, receive, send)


async def _refuse(send: Send) -> None:
    known = tracing.current_trace_id()
    trace_id = known or tracing.start().trace_id
    document = {
        "type": "urn:pulse:problem:misdirected-request",
        "title": "Misdirected Request",
        "status": 421,
        "detail": "The Host header names another server: PULSE_ALLOWED_HOSTS lists the names of this one.",
        "trace_id": trace_id,
    }
    headers = [(b"content-type", b"application/problem+json")]
    if known is None:
        headers.append((b"x-trace-id", trace_id.encode()))
    await send({"type": "http.response.start", "status": 421, "headers": headers})
    await send({"type": "http.response.body", "body": orjson.dumps(document)})


def _name_of(host: str) -> str | None:
    """Return the name or address of a Host header in lower case, without the port. Return None if it is malformed."""
    if host.startswith("["):
        name, bracket, port = host[1:].partition("]")
        rest = not bracket or (port != "" and not port.startswith(":"))
        name, port = ("" if rest or ":" not in name else name), port[1:]
    else:
        name, _, port = host.partition(":")
    if not name or not (port == "" or (port.isascii() and port.isdigit())):
        return None
    return name.lower().removesuffix(".")


def _is_loopback(host: str) -> bool:
    return host == "localhost" or (is_address(host) and ip_address(host).is_loopback)
