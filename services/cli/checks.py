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
# Tests wait half of the time, so two cores run four at once.
PYTEST = ("pytest", ("-m", "pytest", "-n", "4"))


app = new_app()


@app.command(context_settings=PASS_ON)
def test(
    context: typer.Context,
    *,
    everything: Annotated[bool, typer.Option("--all", help="Include the slow tests.")] = False,
    mutations: Annotated[bool, typer.Option("--mutations", help="Measure the strength of the tests instead.")] = False,
) -> None:
    """Run ruff, mypy, import-linter and pytest.

    Runs every tool, even after a failure, and exits with the status of the first that failed. Pass arguments to pytest
    after --.

    With --mutations, applies the faults cataloged in tests/mutations one by one and runs the tests that must catch
    them, which takes about an hour. Arguments after -- select mutations: see --mutations -- --help.
    """
    raise typer.Exit(run_mutations(context.args) if mutations else run_checks(context.args, slow=everything))


def run_checks(pytest_arguments: Sequence[str], *, slow: bool) -> int:
    """Run every tool and return the first nonzero exit status, or 0. Raises CommandFailed outside of a checkout."""
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
    """Return whether the variable is a setting of a stack, which must not reach the tests, and not one of the tests."""
    return name.startswith("PULSE_") and not name.startswith("PULSE_TEST_")


def _verdict(status: int) -> str:
    return "ok" if status == 0 else f"FAILED ({status})"
