"""Faults of a URL that libpq would find while it connects, found before any connection."""

import os
import re
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

from psycopg import pq
from psycopg.conninfo import make_conninfo

ENCODE = "write @ : / ? # % in a user name or password as %40 %3A %2F %3F %23 %25"
_LARGEST = 2**31 - 1
_WHOLE = (
    *("connect_timeout", "keepalives", "keepalives_idle", "keepalives_interval", "keepalives_count"),
    "tcp_user_timeout",
)
_FILES = ("sslrootcert", "sslcert", "sslkey", "sslcrl", "sslcrldir")
# No directory can exist below a device, so libpq checks the parameters and then reaches no server.
_NOWHERE = "/dev/null/none"
_VALUES = {
    "sslmode": "disable, allow, prefer, require, verify-ca or verify-full",
    "sslnegotiation": "postgres or direct",
    "target_session_attrs": "any, read-write, read-only, primary, standby or prefer-standby",
    "load_balance_hosts": "disable or random",
    "channel_binding": "disable, prefer or require",
    "gssencmode": "disable, prefer or require",
    "ssl_min_protocol_version": "TLSv1, TLSv1.1, TLSv1.2 or TLSv1.3",
    "ssl_max_protocol_version": "TLSv1, TLSv1.1, TLSv1.2 or TLSv1.3",
}


def find_fault(given: Mapping[str, str]) -> str | None:
    """Return the fault in the parameters of a URL, in one line without values that may be a password."""
    return next((fault for fault in (*_own_faults(given), _fault_of_libpq(given)) if fault), None)


def hide_values(said: str) -> str:
    """Return a message of libpq without quoted values, except names of parameters."""
    return re.sub(r'"(?![a-z_]{1,40}")[^\n]*"', "…", " ".join(said.split()))


def _own_faults(given: Mapping[str, str]) -> Iterator[str]:
    """Check for faults that libpq finds after connecting, or ignores although services refuse them."""
    for name in _WHOLE:
        value = given.get(name, os.environ.get("PGCONNECT_TIMEOUT") if name == "connect_timeout" else None)
        if value is not None and not _is_whole(value):
            yield f"{name} must be a whole number"
    encoding = given.get("client_encoding", "")
    if encoding not in ("", "auto") and encoding.lower().replace("-", "") not in ("utf8", "unicode"):
        yield "client_encoding must be UTF8"
    hosts, addresses = (given.get(name, "").split(",") for name in ("host", "hostaddr"))
    if addresses != [""] and hosts != [""] and len(hosts) != len(addresses):
        yield f"names {len(hosts)} hosts and {len(addresses)} addresses (hostaddr)"
    if given.get("passfile"):
        yield from _password_file_faults(given["passfile"])
    yield from _tls_faults(given)


def _is_whole(value: str) -> bool:
    text = value.strip().removeprefix("-")
    return text.isascii() and text.isdigit() and int(text[:20]) <= _LARGEST


def _password_file_faults(path: str) -> Iterator[str]:
    try:
        mode = Path(path).stat().st_mode
    except (OSError, ValueError) as error:
        yield f"passfile {path} cannot be read: {getattr(error, 'strerror', None) or 'no such file'}"
    else:
        if not stat.S_ISREG(mode) or mode & (stat.S_IRWXG | stat.S_IRWXO):
            yield f"passfile {path} must be a file that others cannot read: chmod 0600"


def _tls_faults(given: Mapping[str, str]) -> Iterator[str]:
    """Return the missing TLS files. There is no TLS without a host or on a socket."""
    places = (given.get("host") or given.get("hostaddr") or os.environ.get("PGHOST") or "/").split(",")
    mode = given.get("sslmode", os.environ.get("PGSSLMODE"))
    if mode == "disable" or all(place.startswith("/") for place in places):
        return
    files = {name: given.get(name, os.environ.get(f"PG{name.upper()}")) for name in _FILES}
    for name, path in files.items():
        if not path or (name, path) == ("sslrootcert", "system"):
            continue
        try:
            Path(path).stat()
            if name != "sslcrldir":
                Path(path).open("rb").close()
        except (OSError, ValueError) as error:
            yield f"{name} {path} cannot be read: {getattr(error, 'strerror', None) or 'no such file'}"
    usual = Path(os.environ.get("HOME") or "/nonexistent", ".postgresql", "root.crt")
    if mode in ("verify-ca", "verify-full") and not files["sslrootcert"] and not usual.exists():
        yield f"sslmode={mode} needs sslrootcert=FILE with the certificates of the authority, or sslrootcert=system"


def _fault_of_libpq(given: Mapping[str, str]) -> str | None:
    """Let libpq check the parameters on the way to a socket that cannot exist."""
    hosts = given.get("host") or given.get("hostaddr") or os.environ.get("PGHOST") or ""
    replaced = {
        "host": ",".join([_NOWHERE] * (hosts.count(",") + 1)),
        "hostaddr": "",
        "password": "none",  # keeps libpq from reading password files
    }
    if given.get("service") or os.environ.get("PGSERVICE"):
        replaced["port"] = "1"  # the file may name several, each for another host
    session = pq.PGconn.connect_start(make_conninfo("", **{**given, **replaced}).encode())
    said = session.get_error_message()
    session.finish()
    for line in said.splitlines():
        if line.strip() and not line.startswith(("\t", "connection to server on socket", "Is the server running")):
            return _explain(line)
    return None


def _explain(line: str) -> str:
    if line.startswith("invalid port number") or line.endswith('for connection option "port"'):
        return f"a port is no number from 1 to 65535; if it is part of a password, {ENCODE}"
    found = re.match(r"invalid (\w+) value: ", line)
    if found is not None and found[1] in _VALUES:
        return f"{found[1]} must be {_VALUES[found[1]]}"
    return f"{hide_values(line)}: see docs/operate.md"
