"""The tools that every change must pass, run one after the other."""

import os
import subprocess
import sys
import time
from collections.abc import Sequence

from migrations.places import is_checkout
from services.cli.database import without_client_variables
from services.cli.errors import LocalError
from services.cli.home import CHECKOUT

TOOLS: Sequence[tuple[str, Sequence[str]]] = (
    ("ruff check", ("-m", "ruff", "check")),
    ("ruff format", ("-m", "ruff", "format", "--check", "--quiet")),
    ("mypy", ("-m", "mypy", "--strict")),
    (
        "import-linter",
        ("-c", "import sys; from importlinter.cli import lint_imports_command as main; sys.exit(main())"),
    ),
)
# Tests wait for half of their time: four on two cores.
PYTEST = ("pytest", ("-m", "pytest", "-n", "4"))


def run_checks(pytest_arguments: Sequence[str], *, slow: bool) -> int:
    """Run every tool, even after one failed, and return the first nonzero exit status, or 0.

    Tests marked `slow` run only if slow is true. Raises LocalError outside of a checkout.
    """
    env = _environment()
    selection = () if slow else ("-m", "not slow")
    statuses: dict[str, int] = {}
    for name, arguments in (*TOOLS, (PYTEST[0], (*PYTEST[1], *selection, *pytest_arguments))):
        print(f"── {name}", flush=True)
        started = time.monotonic()
        statuses[name] = subprocess.run([sys.executable, *arguments], check=False, cwd=CHECKOUT, env=env).returncode
        print(f"   {_verdict(statuses[name])} in {time.monotonic() - started:.1f} s", flush=True)
    print("   ".join(f"{name}: {_verdict(status)}" for name, status in statuses.items()))
    return next((status for status in statuses.values() if status), 0)


def run_mutations(arguments: Sequence[str]) -> int:
    """Apply the mutations of tests/mutations one by one, run their tests, and return the exit status.

    Raises LocalError outside of a checkout.
    """
    command = [sys.executable, "-m", "tests.mutations", *arguments]
    return subprocess.run(command, check=False, cwd=CHECKOUT, env=_environment()).returncode


def _environment() -> dict[str, str]:
    if not is_checkout():
        raise LocalError("an installed Pulse has no tests: run this in a checkout")
    inherited = without_client_variables(os.environ).items()
    return {name: value for name, value in inherited if not _is_setting(name)} | {"PYTHONPATH": str(CHECKOUT)}


def _is_setting(name: str) -> bool:
    """Settings of a running stack must not reach the tests; settings of the tests must."""
    return name.startswith("PULSE_") and not name.startswith("PULSE_TEST_")


def _verdict(status: int) -> str:
    return "ok" if status == 0 else f"FAILED ({status})"
