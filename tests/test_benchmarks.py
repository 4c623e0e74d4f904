"""The benchmarks run, check their effect and print a ratio; no test judges the ratio."""

import os
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from tests.support.migrator import Migrator

ROOT = Path(__file__).parents[1]
SHORT = {
    "audit": ["--seconds", "0.3", "--rounds", "1"],
    "http": ["--requests", "50", "--rounds", "1", "--no-libraries"],
    "readings_in": ["--seconds", "0.3", "--rounds", "1"],
    "exporter": ["--history", "600", "--pending", "40", "--scrapes", "2", "--rounds", "1"],
    "fairness": ["--probes", "20", "--rules", "20", "--readings", "200", "--rounds", "1"],
    "evaluation": ["--readings", "2000", "--devices", "100", "--breaching", "0.01", "--rounds", "1"],
    "door": ["--seconds", "2"],
    "reading_to_webhook": ["--seconds", "1", "--rate", "20"],
    "fairness_delivery": ["--seconds", "1", "--rate", "20", "--jobs", "2"],
}


def test_every_benchmark_is_tried_here() -> None:
    """A new script in benchmarks/ gets a short run. That of memory is tests/system/test_memory_under_attack.py."""
    assert {path.stem for path in (ROOT / "benchmarks").glob("[a-z]*.py")} == SHORT.keys() | {"memory"}


def run_benchmark(name: str, url: str) -> subprocess.CompletedProcess[str]:
    """Run a short benchmark on the tests' server, which is not durable."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PULSE_")}
    environment |= {"PULSE_BENCH_URL": url, "PULSE_ALLOW_UNSAFE_DATABASE": "true"}
    return subprocess.run(
        [sys.executable, "-m", f"benchmarks.{name}", *SHORT[name]],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", SHORT)
def test_a_short_run_prints_both_sides_and_their_ratio(name: str, empty_url: str) -> None:
    """One run measures the reference and Pulse."""
    done = run_benchmark(name, empty_url)
    assert done.returncode == 0, done.stderr
    first_words = [line.split()[0] for line in done.stdout.splitlines()]
    assert {"reference", "pulse", "ratio"} <= set(first_words)


@pytest.mark.parametrize(
    ("name", "table", "missing"),
    [
        ("evaluation", "alert_rules", "alerts opened: expected"),
        ("evaluation", "devices", "readings stored: expected"),
        ("readings_in", "devices", "readings accepted: expected"),
    ],
)
def test_a_measurement_without_its_effect_is_void(name: str, table: str, missing: str, empty_url: str) -> None:
    """A benchmark whose rules or devices are disabled would be fast, so it exits with 1 and prints no ratio."""
    Migrator(empty_url).upgrade()
    with psycopg.connect(empty_url) as owner:
        owner.execute(f"alter table {table} alter column enabled set default false")
    done = run_benchmark(name, empty_url)
    assert done.returncode == 1
    assert missing in done.stderr
    assert "Traceback" not in done.stderr
    assert "ratio" not in done.stdout
