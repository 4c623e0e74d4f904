"""`pulse bench`: the benchmarks of the checkout, which are separate programs."""

import os
import sys
from typing import Annotated

import typer

from services.cli.app import PASS_ON, new_app
from services.cli.errors import CommandFailed
from services.cli.home import CHECKOUT

app = new_app()
_NAMES = sorted(path.stem for path in (CHECKOUT / "benchmarks").glob("[a-z]*.py"))


@app.command(context_settings=PASS_ON)
def bench(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help=f"One of {', '.join(_NAMES) or 'those of a checkout'}.")] = "",
) -> None:
    """Measure Pulse beside a reference in the same run.

    Pass arguments to the benchmark after its name: see NAME -- --help.
    """
    if not _NAMES:
        raise CommandFailed("an installed Pulse has no benchmarks: run this in a checkout")
    if name not in _NAMES:
        wrong = f"there is no benchmark {name}" if name else "a benchmark is missing"
        raise CommandFailed(f"{wrong}: choose from {', '.join(_NAMES)}")
    os.execv(sys.executable, [sys.executable, "-P", "-m", f"benchmarks.{name}", *context.args])  # noqa: S606  # our own
