"""The benchmarks of the checkout, run as the scripts they are."""

import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from services.cli.errors import LocalError
from services.cli.home import CHECKOUT


def benchmark_names() -> list[str]:
    """Names of the scripts in benchmarks/."""
    return sorted(path.stem for path in (CHECKOUT / "benchmarks").glob("[a-z]*.py"))


def become_benchmark(name: str, arguments: Sequence[str]) -> NoReturn:
    """Replace this process with a benchmark. Raises LocalError when there is none of that name."""
    if not benchmark_names():
        raise LocalError("an installed Pulse has no benchmarks: run this in a checkout")
    if name not in benchmark_names():
        raise LocalError(f"there is no benchmark {name}: choose from {', '.join(benchmark_names())}")
    os.execv(sys.executable, [sys.executable, "-P", "-m", f"benchmarks.{name}", *arguments])  # noqa: S606  # our own script
