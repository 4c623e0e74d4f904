"""The program `pulse audit`, run as a process."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

from tests.support.migrator import ROOT

Done = subprocess.CompletedProcess[str]


class Pulse:
    """Runs `pulse audit` with its own home."""

    def __init__(self, home: Path, url: str) -> None:
        self.home = home
        self.url = url
        self.settings: dict[str, str] = {}

    async def __call__(self, *arguments: str, status: int = 0, text: str | None = None, **settings: str) -> Done:
        """Return the finished process, which exits with this status."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("PULSE_", "PG"))}
        ours = {"PYTHONPATH": str(ROOT), "PULSE_HOME": str(self.home), "PULSE_AUDIT_DATABASE_URL": self.url}

        given = {**inherited, **ours, **self.settings, **settings}

        def run() -> Done:
            return subprocess.run(
                [sys.executable, "-P", "-m", "services.cli", "audit", *arguments],
                check=False,
                cwd="/",
                env=given,
                capture_output=True,
                text=True,
                timeout=60,
                input=text,
            )

        done = await asyncio.to_thread(run)
        assert done.returncode == status, done.stdout + done.stderr
        return done
