"""A short `pulse chaos traces`, and the check of traces, which finds each kind of fault."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.chaos.trace_run import find_faults
from tests.support.chaos_environment import environment

COUNT = os.environ.get("PULSE_TEST_CHAOS_TRACES", "96")


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_no_kill_tears_a_trace(tmp_path: Path) -> None:
    """Services were killed, requests and webhooks were repeated, and each trace is complete."""
    command = [sys.executable, "-P", "-m", "services.cli", "chaos", "traces"]
    options = ["--count", COUNT, "--seed", "3", "--keep", str(tmp_path)]
    done = subprocess.run([*command, *options], check=False, cwd="/", env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    report = orjson.loads((tmp_path / "report.json").read_bytes())
    assert (report["broken"], report["orphans"], report["traces"]) == ([], 0, int(COUNT))
    assert sum(report["kills"].values()) >= 2
    assert set(report["webhooks"]) == {"204", "503"}
    rows = report["rows"]
    assert rows["attempt"] > rows["job"] >= rows["event"] > rows["alert"] > 16
    assert rows["request"] >= rows["reading"] == int(COUNT)


def step(span_id: str, parent: str | None, kind: str, state: str | None = None) -> dict[str, Any]:
    """Return a span as the timeline does."""
    return {"span_id": span_id, "parent_span_id": parent, "kind": kind, "state": state, "entity_id": "1"}


WHOLE = [
    step("a", None, "request"),
    step("b", "a", "reading"),
    step("c", "b", "event"),
    step("d", "c", "job", "delivered"),
    step("e", "d", "attempt"),
]


@pytest.mark.parametrize(
    ("steps", "taken", "faults"),
    [
        (WHOLE, 1, []),
        (WHOLE[1:], 1, ["acknowledged trace without a request", "step whose parent is missing"]),
        ([WHOLE[0]], 0, ["acknowledged trace without a reading"]),
        ([*WHOLE, step("c", "b", "event")], 1, ["two steps with one span id"]),
        ([*WHOLE, step("f", None, "audit")], 1, ["audit that hangs from nothing"]),
        (WHOLE, 0, ["receiver and trace do not agree on what was delivered"]),
        (WHOLE, 2, ["receiver and trace do not agree on what was delivered"]),
        ([*WHOLE[:3], step("d", "c", "job", "dead")], 0, ["notification that was not delivered"]),
    ],
)
def test_the_judge_finds_each_fault(steps: list[dict[str, Any]], taken: int, faults: list[str]) -> None:
    """A complete trace has no faults."""
    assert list(find_faults(steps, taken, set())) == faults


def test_a_webhook_bears_the_span_of_its_attempt() -> None:
    """The receiver gets the same span as the trace shows."""
    assert list(find_faults(WHOLE, 1, {"e"})) == []
    assert list(find_faults(WHOLE, 1, {"e", "d"})) == ["webhook whose span is no attempt of its trace"]
