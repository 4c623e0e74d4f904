"""Which database a migration goes to."""

import json
import os
from pathlib import Path

from psycopg.conninfo import conninfo_to_dict

CHECKOUT = Path(__file__).parents[1]


class NoDatabase(Exception):
    """No database is named: set PULSE_MIGRATION_URL or PULSE_DATABASE_URL, or start one with ./pulse up."""

    def __init__(self) -> None:
        super().__init__(self.__doc__)


def database_url() -> str:
    """PULSE_MIGRATION_URL, else PULSE_DATABASE_URL, else the embedded server of a running `./pulse up`."""
    named = os.environ.get("PULSE_MIGRATION_URL") or os.environ.get("PULSE_DATABASE_URL") or _embedded_url()
    if not named:
        raise NoDatabase
    return named


def _embedded_url() -> str | None:
    """What the running stack wrote down, None when there is none or its server is gone."""
    home = os.environ.get("PULSE_HOME")
    state = (Path(home).expanduser() if home else CHECKOUT / ".pulse") / "stack.json"
    try:
        url = json.loads(state.read_bytes())["migration_url"]
    except (OSError, ValueError, TypeError, KeyError):
        return None
    if not isinstance(url, str):
        return None
    place = conninfo_to_dict(url)
    socket = Path(str(place.get("host", ""))) / f".s.PGSQL.{place.get('port', 5432)}"
    return url if socket.exists() else None
