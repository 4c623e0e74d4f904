"""The benchmarks run and print their ratio; what they measure is for people to read, not for tests to judge."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SHORT = {
    "audit": ["--seconds", "0.3", "--rounds", "1"],
    "http": ["--requests", "50", "--rounds", "1", "--no-libraries"],
    "readings_in": ["--seconds", "0.3", "--rounds", "1"],
    "exporter": ["--history", "600", "--pending", "40", "--scrapes", "2", "--rounds", "1"],
    "evaluation": ["--readings", "2000", "--devices", "100", "--breaching", "0.01", "--rounds", "1"],
    "reading_to_webhook": ["--seconds", "1", "--rate", "20"],
}


def test_every_benchmark_is_tried_here() -> None:
    """A new script in benchmarks/ gets a short run."""
    assert {path.stem for path in (ROOT / "benchmarks").glob("[a-z]*.py")} == SHORT.keys()


@pytest.mark.parametrize("name", SHORT)
def test_a_short_run_prints_both_sides_and_their_ratio(name: str, empty_url: str) -> None:
    """Reference and Pulse in the same run, on the tests' server, which is there and loses rows in a crash."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PULSE_")}
    environment |= {"PULSE_BENCH_URL": empty_url, "PULSE_ALLOW_UNSAFE_DATABASE": "true"}
    done = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{name}", *SHORT[name]],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    first_words = [line.split()[0] for line in done.stdout.splitlines()]
    assert {"reference", "pulse", "ratio"} <= set(first_words)
