"""The environment of chaos runs, without the settings of another stack."""

import os

from services.cli.home import CHECKOUT


def environment() -> dict[str, str]:
    """Return the environment without the settings of another stack."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("PULSE_", "PG"))}
    return {**inherited, "PYTHONPATH": str(CHECKOUT)}
