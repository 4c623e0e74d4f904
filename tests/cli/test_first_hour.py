"""The first hour of each reader, pasted block by block into a shell beside a whole stack."""

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from services.cli.home import CHECKOUT
from tests.support.processes import free_port
from tests.support.running_stack import RunningStack, free_port_base

GUIDE = CHECKOUT / "docs" / "first-hour.md"
BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.DOTALL | re.MULTILINE)
SECONDS = 900


@pytest.fixture
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStack]:
    """A stack with its demo."""
    running = RunningStack(tmp_path_factory.mktemp("first hour") / "home", free_port_base(), ("--rate", "1"))
    running.start()
    try:
        yield running
    finally:
        running.kill()


def test_every_act_has_its_block() -> None:
    blocks = "".join(BLOCK.findall(GUIDE.read_text(encoding="utf-8")))
    for act in (
        *("POST /api/v1/devices", "POST /api/v1/channels", "POST /api/v1/rules", "POST /api/v1/routes", "/readings"),
        *("/acknowledge", "/silence", "/redrive", "/close", "PATCH", "DELETE", "If-Match", "Idempotency-Key"),
        *(
            "psql --as auditor",
            "audit verify",
            "/audit/events",
            "audit export",
            "audit prove",
            "audit hold",
            "--against",
        ),
        *("pulse status", "/readyz", "/metrics", "pulse trace", "metrics list", "create view metrics.", "audit hold"),
    ):
        assert act in blocks, act
    for document in ("README.md", "docs/architecture.md"):
        assert "first-hour.md" in (CHECKOUT / document).read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_first_hour_works_when_pasted(stack: RunningStack, tmp_path: Path, require: Callable[[str], str]) -> None:
    """In one shell that stops at the first block that fails."""
    require("curl")
    stack.until_ready()
    program = tmp_path / "pulse"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -P -m services.cli "$@"\n')
    program.chmod(0o755)
    (tmp_path / "docs").symlink_to(GUIDE.parent)
    (tmp_path / ".venv").symlink_to(sys.prefix)
    blocks = BLOCK.findall(GUIDE.read_text(encoding="utf-8"))
    text = "".join(f"echo '=== block {number}'\n{block}" for number, block in enumerate(blocks))
    script = re.sub(r"\b808([1-7])\b", lambda port: str(stack.port_base + int(port[1])), text)
    script = script.replace("8099", str(free_port()))
    pasted = subprocess.run(
        [require("bash"), "-euo", "pipefail", "-c", f"trap 'kill $(jobs -p) 2>/dev/null || true' EXIT\n{script}"],
        check=False,
        cwd=tmp_path,
        env=stack.environment,
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert pasted.returncode == 0, pasted.stdout + pasted.stderr
    for shown in (
        *('"accepted":1', '"state":"dead"', "HTTP 400", '"status":"acknowledged"', '"silenced_until":"20'),
        *('"name":"Pump pressure far too high"', '"close_reason":"Valve replaced"', "config.rule_updated"),
        *("pulse_queue_depth", "attempt 1: delivered", "auth.login_failure", "exported events are unchanged"),
        *("Case 7", "pulse_rules_enabled{", "CREATE OR REPLACE FUNCTION dispatcher.dispatch"),
    ):
        assert shown in pasted.stdout, shown
