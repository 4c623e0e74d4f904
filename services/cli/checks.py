"""`pulse test`: the tools that every change must pass, run one after the other."""

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Annotated

import typer

from migrations.places import is_checkout
from services.cli.app import PASS_ON, new_app
from services.cli.database import without_client_variables
from services.cli.errors import CommandFailed
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


app = new_app()


@app.command(context_settings=PASS_ON)
def test(
    context: typer.Context,
    *,
    everything: Annotated[bool, typer.Option("--all", help="Include the tests marked slow.")] = False,
    mutations: Annotated[bool, typer.Option("--mutations", help="Measure the strength of the tests instead.")] = False,
) -> None:
    """Run ruff, mypy, import-linter and pytest.

    Arguments after -- go to pytest. Every tool runs; the exit status is that of the first that failed.

    With --mutations, apply the faults cataloged in tests/mutations one by one and run the tests that must catch each.
    Arguments after -- select mutations; --mutations -- --help shows them. It takes about an hour.
    """
    raise typer.Exit(run_mutations(context.args) if mutations else run_checks(context.args, slow=everything))


def run_checks(pytest_arguments: Sequence[str], *, slow: bool) -> int:
    """Run every tool, even after one failed, and return the first nonzero exit status, or 0.

    Tests marked `slow` run only if slow is true. Raises CommandFailed outside of a checkout.
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

    Raises CommandFailed outside of a checkout.
    """
    command = [sys.executable, "-m", "tests.mutations", *arguments]
    return subprocess.run(command, check=False, cwd=CHECKOUT, env=_environment()).returncode


def _environment() -> dict[str, str]:
    if not is_checkout():
        raise CommandFailed("an installed Pulse has no tests: run this in a checkout")
    inherited = without_client_variables(os.environ).items()
    return {name: value for name, value in inherited if not _is_setting(name)} | {"PYTHONPATH": str(CHECKOUT)}


def _is_setting(name: str) -> bool:
    """Settings of a running stack must not reach the tests; settings of the tests must."""
    return name.startswith("PULSE_") and not name.startswith("PULSE_TEST_")


def _verdict(status: int) -> str:
    return "ok" if status == 0 else f"FAILED ({status})"
