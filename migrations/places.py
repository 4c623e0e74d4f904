"""Paths of files: beside the packages in a checkout, in this package or below the user's home in an installation."""

import os
from pathlib import Path

_HERE = Path(__file__).resolve().parent
_CHECKOUT = _HERE.parent


def is_checkout() -> bool:
    """Return whether this code runs from a checkout, not from an installed package."""
    return (_CHECKOUT / "pyproject.toml").exists()


def sql_directory() -> Path:
    """Return the directory of the SQL layer."""
    return _CHECKOUT / "sql" if is_checkout() else _HERE / "sql"


def state_directory() -> Path:
    """Return the directory of run-time files: PULSE_HOME, else one of the checkout or of the user."""
    named = os.environ.get("PULSE_HOME")
    if named:
        return Path(named).expanduser()
    if is_checkout():
        return _CHECKOUT / ".pulse"
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "pulse"
