"""The database of a migration, checked before libpq connects."""

import json
import os
import re
from pathlib import Path

import psycopg
from psycopg.conninfo import conninfo_to_dict

from migrations.places import state_directory
from migrations.url_faults import ENCODE, find_fault, hide_values

VARIABLES = ("PULSE_MIGRATION_URL", "PULSE_DATABASE_URL")
_SEVERAL_HOSTS_SECONDS = 2
_ONE_HOST_SECONDS = 10


class NoDatabase(Exception):
    """No database is named: set PULSE_MIGRATION_URL or PULSE_DATABASE_URL, or start one with ./pulse up."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or self.__doc__)


class BadDatabaseUrl(NoDatabase):
    """Raised if the database URL cannot be used."""


def database_url() -> str:
    """Return PULSE_MIGRATION_URL, else PULSE_DATABASE_URL, else the embedded server of a running `./pulse up`.

    Raises NoDatabase with one line that holds no password.
    """
    for variable in VARIABLES:
        url = os.environ.get(variable)
        if url:
            return checked_url(url, variable)
    embedded = _embedded_url()
    if not embedded:
        raise NoDatabase
    return embedded


def checked_url(url: str, variable: str) -> str:
    """Return the URL with the parameters of a migration: a writable server, and a limit for a silent one.

    Raises BadDatabaseUrl, which names the variable, if the URL cannot be used.
    """
    url = url.strip()
    parts = _parts(url, variable)
    hosts = (parts.get("host") or parts.get("hostaddr") or os.environ.get("PGHOST") or "").count(",") + 1
    added = {}
    # migrations.server refuses a single read-only server and says why.
    if hosts > 1 and not (parts.get("target_session_attrs") or os.environ.get("PGTARGETSESSIONATTRS")):
        added["target_session_attrs"] = "read-write"
    service = parts.get("service") or os.environ.get("PGSERVICE")
    if not (parts.get("connect_timeout") or os.environ.get("PGCONNECT_TIMEOUT") or service):
        added["connect_timeout"] = str(_SEVERAL_HOSTS_SECONDS if hosts > 1 else _ONE_HOST_SECONDS)
    mark = "&" if "?" in url else "?"
    return url + "".join(
        f"{'&' if number else mark}{name}={value}" for number, (name, value) in enumerate(added.items())
    )


def _parts(url: str, variable: str) -> dict[str, str]:
    if re.match(r"postgres(ql)?://", url) is None:
        raise BadDatabaseUrl(f"{variable} must be a URL that begins with postgresql://")
    if "@" in url.partition("://")[2].partition("/")[2].partition("?")[0]:
        raise BadDatabaseUrl(f"{variable} holds an @ behind its first /: {ENCODE}")
    try:
        parts = conninfo_to_dict(url)
    except (psycopg.Error, UnicodeError) as error:
        # libpq quotes unreadable parts, which may be a password; only the name of a parameter is shown.
        raise BadDatabaseUrl(f"{variable}: {hide_values(str(error))}; {ENCODE}") from None
    given = {name: str(value) for name, value in parts.items() if value is not None}
    fault = find_fault(given)
    if fault is not None:
        raise BadDatabaseUrl(f"{variable}: {fault}")
    return given


def _embedded_url() -> str | None:
    """Return the URL in the running stack's state file, None without a running server."""
    state = state_directory() / "stack.json"
    try:
        url = json.loads(state.read_bytes())["migration_url"]
    except (OSError, ValueError, TypeError, KeyError):
        return None
    if not isinstance(url, str):
        return None
    place = conninfo_to_dict(url)
    socket = Path(str(place.get("host", ""))) / f".s.PGSQL.{place.get('port', 5432)}"
    return url if socket.exists() else None
