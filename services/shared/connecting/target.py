"""The hosts, login and limits of a URL, checked at start and read for each connection.

A rotated password or a renewed certificate is used from the next connection on.
"""

import getpass
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from services.shared.connecting.parameters import read_parameters
from services.shared.connecting.pass_file import find_password, is_private
from services.shared.connecting.tls import Tls, read_tls
from services.shared.connecting.url import ENCODE, BadUrl, split_url

_SOCKET_DIRECTORIES = ("/var/run/postgresql", "/tmp")  # noqa: S108  where servers put their sockets
_LONGEST_SOCKET = 107
_DEFAULT_PORT = 5432
_KEEPALIVES = ("keepalives", "keepalives_idle", "keepalives_interval", "keepalives_count", "tcp_user_timeout")


@dataclass(frozen=True, slots=True)
class Host:
    """One of the hosts that a URL names: a name, an address or the directory of a socket."""

    name: str
    port: int
    address: str | None = None
    """An address to connect to instead of resolving the name."""

    @property
    def is_socket(self) -> bool:
        """Return whether it is a socket on this machine."""
        return self.name.startswith("/")

    def __str__(self) -> str:
        return f"{self.name}/.s.PGSQL.{self.port}" if self.is_socket else f"{self.name}:{self.port}"


@dataclass(frozen=True, slots=True)
class Target:
    """The sum of a URL, its service file and libpq's variables."""

    hosts: tuple[Host, ...]
    user: str
    dbname: str
    tls: Tls
    given_password: str | None = field(repr=False)
    passfile: Path | None
    connect_seconds: float | None
    """Time-out of each host, or None for the default."""
    has_limit: bool
    """False with connect_timeout=0, so that only the limit of the caller applies."""
    session_attrs: str | None
    at_random: bool
    options: str | None
    keepalives: Mapping[str, int]

    def password(self, host: Host) -> str | None:
        """Return the password for a host, from the URL or from the current password file."""
        if self.given_password is not None or self.passfile is None:
            return self.given_password
        # In a password file, localhost stands for libpq's default socket directory, which differs between builds.
        for name in (host.name, "localhost") if host.is_socket else (host.name,):
            found = find_password(self.passfile, host=name, port=host.port, dbname=self.dbname, user=self.user)
            if found is not None:
                return found
        return None

    def check_tls(self) -> None:
        """Raise BadUrl if a file of TLS is missing or unusable."""
        for host in self.hosts:
            self.tls.attempts(host.name)


def check_url(url: str) -> None:
    """Raise BadUrl if no connection is possible with the URL."""
    read_target(url).check_tls()
    named = split_url(url).get("passfile")
    if named:
        try:
            private = is_private(Path(named))
        except OSError as error:
            raise BadUrl(f"passfile {named} cannot be read: {error.strerror}") from None
        if not private:
            raise BadUrl(f"passfile {named} must be a file that others cannot read: chmod 0600")


def read_target(url: str, env: Mapping[str, str] | None = None) -> Target:
    """Return the target of a URL. Raises BadUrl."""
    env = os.environ if env is None else env
    found = read_parameters(url, env)
    user = found.get("user") or _login()
    seconds = int(found.get("connect_timeout", "0"))
    passfile = found.get("passfile") or _at_home(env, ".pgpass")
    return Target(
        hosts=_hosts(found),
        user=user,
        dbname=found.get("dbname") or user,
        tls=read_tls(found, env),
        given_password=found.get("password"),
        passfile=Path(passfile) if passfile else None,
        connect_seconds=float(seconds) if seconds > 0 else None,
        has_limit="connect_timeout" not in found or seconds > 0,
        session_attrs=found.get("target_session_attrs"),
        at_random=found.get("load_balance_hosts") == "random",
        options=found.get("options"),
        keepalives={name: int(found[name]) for name in _KEEPALIVES if name in found},
    )


def _hosts(found: Mapping[str, str]) -> tuple[Host, ...]:
    names = found["host"].split(",") if "host" in found else []
    addresses = found["hostaddr"].split(",") if "hostaddr" in found else []
    if names and addresses and len(names) != len(addresses):
        raise BadUrl(f"names {len(names)} hosts and {len(addresses)} addresses (hostaddr)")
    count = max(len(names), len(addresses), 1)
    ports = found.get("port", "").split(",")
    if len(ports) not in (1, count):
        raise BadUrl(f"names {len(ports)} ports and {count} hosts")
    hosts = []
    for number in range(count):
        port = _port(ports[number if len(ports) > 1 else 0], number + 1)
        address = addresses[number] if addresses else None
        name = names[number] if names else address or ""
        hosts.append(Host(_host_name(name, port, number + 1), port, address or None))
    return tuple(hosts)


def _port(text: str, number: int) -> int:
    if not text:
        return _DEFAULT_PORT
    if re.fullmatch(r"\s*\d{1,9}\s*", text, re.ASCII) is None or not 1 <= int(text) <= 65535:
        # Not quoted: in a URL whose password holds a slash this is a part of the password.
        raise BadUrl(f"the port of host {number} is no number from 1 to 65535; if it is part of a password, {ENCODE}")
    return int(text)


def _host_name(name: str, port: int, number: int) -> str:
    if "@" in name or "\0" in name or len(name) > 253:
        raise BadUrl(f"host {number} is no name of a host: {ENCODE}")
    if not name:
        there = [place for place in _SOCKET_DIRECTORIES if Path(place, f".s.PGSQL.{port}").exists()]
        return there[0] if there else "localhost"
    try:
        name.encode("idna")
    except UnicodeError:
        if not name.startswith("/"):
            raise BadUrl(f"host {number} is no name of a host: {ENCODE}") from None
    if name.startswith("/") and len(f"{name}/.s.PGSQL.{port}".encode()) > _LONGEST_SOCKET:
        raise BadUrl(f"the socket of host {number} has a path of more than {_LONGEST_SOCKET} bytes")
    return name


def _login() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        raise BadUrl("names no user, and this process runs as one without a name") from None


def _at_home(env: Mapping[str, str], name: str) -> str | None:
    home = env.get("HOME")
    return f"{home}/{name}" if home else None
