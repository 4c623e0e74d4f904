"""Connections to one of the hosts of a URL. Each host has its own time limit, and the last good one is tried first.

host ─▶ addresses ─▶ TLS or not ─▶ login ─▶ session settings ─▶ required kind of server? ─▶ connection
  ▲                                                                            │
  └──────────── refused, silent, starting, or another kind of server ──────────┘
"""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable, Hashable, Iterable, Mapping
from random import sample
from typing import Any, Final, TypeVar

import asyncpg

from services.shared.connecting.faults import UnsafeDatabase, WrongServer
from services.shared.connecting.session import STARTUP, require, settle
from services.shared.connecting.target import Host, Target, read_target
from services.shared.connecting.url import BadUrl
from services.shared.destination import is_address

T = TypeVar("T", bound=Hashable)

CONNECT_SECONDS: Final = 10.0
"""Time-out of a connection, over all hosts."""
HOST_SECONDS: Final = 2.0
"""Time-out of one of several hosts, unless connect_timeout is given."""

# After these errors the next host is tried. Other errors, such as a wrong password, are final.
_NEXT = (OSError, TimeoutError, asyncpg.PostgresConnectionError, asyncpg.CannotConnectNowError)
# After these errors, sslmode=allow and prefer try with or without TLS.
_OTHER_WAY = (ssl.SSLError, ConnectionError, asyncpg.InvalidAuthorizationSpecificationError)
_OPTIONS = (
    ("keepalives_idle", "TCP_KEEPIDLE"),
    ("keepalives_interval", "TCP_KEEPINTVL"),
    ("keepalives_count", "TCP_KEEPCNT"),
    ("tcp_user_timeout", "TCP_USER_TIMEOUT"),
)


class _Line:
    """The order of attempts: the last success comes first, the last failure comes last."""

    def __init__(self) -> None:
        self._ranks: dict[Hashable, int] = {}
        self._failures = 0

    def ordered(self, things: Iterable[T]) -> list[T]:
        return sorted(things, key=lambda thing: self._ranks.get(thing, 0))

    def succeeded(self, thing: Hashable) -> None:
        self._ranks = {other: rank for other, rank in self._ranks.items() if rank > 0 and other != thing}
        self._ranks[thing] = -1

    def failed(self, thing: Hashable) -> None:
        self._failures += 1
        self._ranks[thing] = self._failures


class Connector:
    """Makes connections to the database of a URL. Use one for each pool or kept connection: it remembers hosts.

    default_attrs: returns the default of target_session_attrs for a number of hosts. pooled: the URL leads to a pooler
    in transaction mode. options: of asyncpg.connect, for every connection.
    """

    def __init__(
        self, url: str, *, application_name: str, default_attrs: Callable[[int], str], pooled: bool, **options: Any
    ) -> None:
        self._url = url
        self._application_name = application_name
        self._default_attrs = default_attrs
        self._pooled = pooled
        self._options = options
        self._hosts = _Line()
        self._addresses = _Line()

    async def connect(self, *_url: str, timeout: float = CONNECT_SECONDS, **options: Any) -> asyncpg.Connection:  # noqa: ASYNC109  asyncpg's name
        """Return a connection. Takes the options of asyncpg.connect, as asyncpg.create_pool(connect=…) gives them.

        Raises an exception of UNAVAILABLE, which includes WrongServer and UnsafeDatabase, and asyncpg.PostgresError if
        a server refuses.
        """
        try:
            target = read_target(self._url)
            target.check_tls()
        except BadUrl as error:  # the URL was valid at start, so a file is missing or was replaced
            raise ConnectionError(f"the URL of the database {error}") from error
        wanted = target.session_attrs or self._default_attrs(len(target.hosts))
        async with asyncio.timeout(timeout):
            if wanted == "prefer-standby":
                with contextlib.suppress(WrongServer):
                    return await self._connect(target, "standby", options)
                wanted = "any"
            return await self._connect(target, wanted, options)

    async def _connect(self, target: Target, wanted: str, options: Mapping[str, Any]) -> asyncpg.Connection:
        errors: list[tuple[Host, Exception]] = []
        for host in sample(target.hosts, len(target.hosts)) if target.at_random else self._hosts.ordered(target.hosts):
            try:
                return await self._connect_host(target, host, wanted, options)
            except _NEXT as error:
                if isinstance(error, UnsafeDatabase):
                    raise
                errors.append((host, error))
        raise _summary(errors)

    async def _connect_host(
        self, target: Target, host: Host, wanted: str, options: Mapping[str, Any]
    ) -> asyncpg.Connection:
        """Try the addresses of a host."""
        errors: list[tuple[Host, Exception]] = []
        try:
            async with asyncio.timeout(_limit(target, addresses=1)):
                found = await _resolve(host)
            places = sample(found, len(found)) if target.at_random else self._addresses.ordered(found)
            for place in places:
                try:
                    async with asyncio.timeout(_limit(target, addresses=len(places))):
                        connection = await self._open(target, host, place, wanted, options)
                except BaseException as error:
                    self._addresses.failed(place)
                    if not isinstance(error, _NEXT) or isinstance(error, UnsafeDatabase):
                        raise
                    errors.append((host, error))
                else:
                    self._addresses.succeeded(place)
                    self._hosts.succeeded(host)
                    return connection
            raise _summary(errors)  # noqa: TRY301  the host has failed as well
        except BaseException:
            # A caller that gives up marks the host as slow. Otherwise a probe would try this host first forever.
            self._hosts.failed(host)
            raise

    async def _open(
        self, target: Target, host: Host, place: tuple[str, int], wanted: str, options: Mapping[str, Any]
    ) -> asyncpg.Connection:
        connection = await self._login(target, host, place, options)
        try:
            _keep_alive(connection, target.keepalives)
            state = await settle(connection, pooled=self._pooled)
            require(state, wanted, host)
        except BaseException:
            connection.terminate()
            raise
        return connection

    async def _login(
        self, target: Target, host: Host, place: tuple[str, int], options: Mapping[str, Any]
    ) -> asyncpg.Connection:
        """Log in, with TLS or without, in the order that sslmode names."""
        *first, last = target.tls.attempts(host.name)
        common = {
            "host": place[0],
            "port": place[1],
            "user": target.user,
            "database": target.dbname,
            # With None, asyncpg would search for a password itself.
            "password": target.password(host) or "",
            "direct_tls": target.tls.direct and not host.is_socket,
            "target_session_attrs": "any",
            "timeout": 3600,  # the limits are ours
            **self._options,
            "server_settings": {
                "application_name": self._application_name,
                **STARTUP,
                **({"options": target.options} if target.options else {}),
            },
            **options,
        }
        for context in first:
            try:
                return await asyncpg.connect(**common, ssl=context or False)
            except asyncpg.InvalidPasswordError:
                raise
            except _OTHER_WAY:
                continue
        return await asyncpg.connect(**common, ssl=last or False)


def _limit(target: Target, *, addresses: int) -> float | None:
    if not target.has_limit:
        return None
    return target.connect_seconds or (HOST_SECONDS if len(target.hosts) > 1 else CONNECT_SECONDS / addresses)


async def _resolve(host: Host) -> list[tuple[str, int]]:
    """Return the addresses of a host."""
    if host.address is not None or host.is_socket or is_address(host.name):
        return [(host.address or host.name, host.port)]
    found = await asyncio.get_running_loop().getaddrinfo(host.name, host.port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys((str(address[0]), host.port) for *_, address in found))


def _keep_alive(connection: asyncpg.Connection, wanted: Mapping[str, int]) -> None:
    """Set the keepalives of the client, as libpq does."""
    transport = connection._transport  # noqa: SLF001  asyncpg does not expose its socket
    raw = transport.get_extra_info("socket")
    if raw is None or raw.family == socket.AF_UNIX or wanted.get("keepalives") == 0:
        return
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, option in _OPTIONS:
        number = getattr(socket, option, None)
        if wanted.get(name, 0) > 0 and number is not None:
            raw.setsockopt(socket.IPPROTO_TCP, number, wanted[name])


def _summary(errors: list[tuple[Host, Exception]]) -> Exception:
    """Return one error with the message of each host."""
    if len(errors) == 1 and str(errors[0][1]):
        return errors[0][1]
    said = [
        text if text.startswith(str(host)) else f"{host}: {text or 'no answer in time'}"
        for host, text in ((host, str(error)) for host, error in errors)
    ]
    wrong = any(isinstance(error, WrongServer) for _, error in errors)
    silent = all(isinstance(error, TimeoutError) for _, error in errors)
    kind = WrongServer if wrong else TimeoutError if silent else ConnectionError
    return kind("; ".join(said))
