"""A minute of chaos through the command itself: `pulse chaos audit`."""

import shutil
import signal
import subprocess
import sys
from pathlib import Path

import orjson
import psutil
import pytest

from services.local.process import pids
from tests.chaos.faults import KINDS
from tests.support.chaos_environment import environment
from tests.support.wait import until_now

COMMAND = [sys.executable, "-P", "-m", "services.cli", "chaos", "audit", "--minutes", "1", "--seed", "12"]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_minute_of_chaos_breaks_no_promise(tmp_path: Path) -> None:
    """Every kind of fault happened, events were acknowledged and lost, and the trail agrees with the responses."""
    command = [*COMMAND, "--keep", str(tmp_path)]
    done = subprocess.run(command, check=False, cwd="/", env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    report = orjson.loads((tmp_path / "report.json").read_bytes())
    assert report["broken"] == []
    assert set(report["faults"]) == set(KINDS), report["left_out"]
    assert report["acknowledged"] > 500
    assert report["entities"] > 10
    assert report["leases"] > 1
    assert report["checkpoints"] > 10
    assert report["gap_rows"] > 0, "database and disk were never away together"


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_nothing_outlives_the_command(number: signal.Signals) -> None:
    """At any end, its server, API and sealers stop. Unless it was killed, its files are removed."""
    root = None
    with subprocess.Popen(COMMAND, cwd="/", env=environment(), stdout=subprocess.PIPE) as command:
        try:
            assert command.stdout is not None
            assert any(b"faults in" in line for line in command.stdout), "it did not start"
            children = descendants(command.pid)
            root = next(part for pid in children for part in pids.command_line(pid) if part.endswith("/postgres/data"))
            assert len(children) > 6
            command.send_signal(number)
            assert command.wait(30) == (130 if number == signal.SIGTERM else -number)
            until_now(lambda: not any(pids.is_running(pid) for pid in children), seconds=20)
            assert Path(root).exists() == (number == signal.SIGKILL)
        finally:
            command.kill()
            if root is not None:
                shutil.rmtree(Path(root).parents[1], ignore_errors=True)


def descendants(pid: int) -> list[int]:
    """Return the pids of all processes below one."""
    return [child.pid for child in psutil.Process(pid).children(recursive=True)]
