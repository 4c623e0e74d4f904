"""The command `pulse migrate`, run as a process."""

import os
import subprocess
import sys

from tests.support.migrator import ROOT


def pulse_migrate(url: str) -> subprocess.CompletedProcess[str]:
    """Run `./pulse migrate`, the command that the runbooks name."""
    return subprocess.run(
        [sys.executable, "-m", "services.cli", "migrate"],
        check=False,
        cwd=ROOT,
        env={**os.environ, "PULSE_MIGRATION_URL": url},
        capture_output=True,
        text=True,
    )
