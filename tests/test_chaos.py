"""A minute of chaos through the command itself: `pulse chaos audit`."""

import os
import subprocess
import sys
from pathlib import Path

import orjson
import pytest

from services.local.chaos.faults import KINDS
from services.local.home import CHECKOUT

SEED = 7


@pytest.mark.timeout(300)
def test_a_minute_of_chaos_breaks_no_promise(tmp_path: Path) -> None:
    """Every kind of fault happened, events were acknowledged and lost, and all is as it was told."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("PULSE_", "PG"))}
    keep = tmp_path / "chaos"
    done = subprocess.run(
        [
            *(sys.executable, "-P", "-m", "services.cli", "chaos", "audit"),
            *("--minutes", "1", "--seed", str(SEED), "--keep", str(keep)),
        ],
        check=False,
        cwd="/",
        env={**inherited, "PYTHONPATH": str(CHECKOUT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    report = orjson.loads((keep / "report.json").read_bytes())
    assert report["broken"] == []
    assert set(report["faults"]) == set(KINDS), report["left_out"]
    assert report["acknowledged"] > 500
    assert report["entities"] > 10
    assert report["leases"] > 1
    assert report["checkpoints"] > 10
