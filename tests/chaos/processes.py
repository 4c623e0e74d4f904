"""Services as kept processes of a run, with its own settings only."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

import httpx

from services.cli import database
from services.cli.home import CHECKOUT
from services.local.process.command import Command
from services.local.process.tether import tethered
from services.local.stack.supervise import Spec

PROBE_SECONDS = 1.0


def inherited() -> dict[str, str]:
    """Return the environment without settings of another stack."""
    ours = database.without_client_variables(os.environ).items()
    return {name: value for name, value in ours if not name.startswith("PULSE_")} | {"PYTHONPATH": str(CHECKOUT)}


def service_spec(
    name: str, module: str, *, port: int, log: Path, settings: Mapping[str, str], client: httpx.AsyncClient
) -> Spec:
    """Return a service that is ready when it says so. settings: without the prefix."""
    environment = inherited() | {f"PULSE_{setting}": value for setting, value in settings.items()}
    command = Command(tethered([sys.executable, "-P", "-m", module]), environment, cwd=str(CHECKOUT))

    async def ready(_pid: int) -> bool:
        try:
            answer = await client.get(f"http://127.0.0.1:{port}/readyz", timeout=PROBE_SECONDS)
        except httpx.HTTPError:
            return False
        return answer.status_code == 200

    async def start() -> Command:
        return command

    return Spec(name, port, log, start, ready)
