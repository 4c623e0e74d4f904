"""Run the tests that depend on FastAPI's internals under other FastAPI versions: python -m tests.fastapi_versions.

Without arguments: the oldest that pyproject.toml allows, the last that did not measure itself, and the newest. Each is
laid over the libraries of this environment, with its Starlette, in a directory that is thrown away.
"""

import os
import re
import subprocess
import sys
import tempfile
import tomllib
from importlib.metadata import Distribution, distributions

from tests.support.migrator import ROOT

NEWEST = "newest"
BEFORE_TELEMETRY = "0.141.1"
TESTS = (
    "path_template",
    "trace_middleware",
    "http_truth",
    "http_hostile",
    "http_fail_open",
    "api_reading",
    "api_contract",
)
SECONDS = 300


def oldest() -> str:
    """Return the lower bound of pyproject.toml."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    [bound] = [need.partition(">=")[2] for need in project["dependencies"] if need.startswith("fastapi>=")]
    return str(bound)


def check(version: str) -> str | None:
    """Run the tests under a version and report the result in a line; return their output if one failed."""
    with tempfile.TemporaryDirectory(prefix="pulse-fastapi-") as place:
        _install(place, "fastapi" if version == NEWEST else f"fastapi=={version}")
        _install(place, *[need for need in _find(place, "fastapi").requires or () if need.startswith("starlette")])
        files = [f"tests/ui_iot/test_{name}.py" for name in TESTS]
        ran = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--show-capture=no", *files],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": place},
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        versions = ", ".join(f"{name} {_find(place, name).version}" for name in ("fastapi", "starlette"))
    lines = ran.stdout.strip().splitlines() or [ran.stderr]
    sys.stdout.write(f"{versions}: {lines[-1]}\n")
    passed = ran.returncode == 0 and re.match(r"\d+ passed", lines[-1])
    return None if passed else ran.stdout + ran.stderr


def _install(place: str, *needs: str) -> None:
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", place, *needs]
    subprocess.run(command, check=True, timeout=SECONDS, stderr=subprocess.DEVNULL)


def _find(place: str, name: str) -> Distribution:
    return next(found for found in distributions(path=[place]) if found.metadata["Name"] == name)


def main() -> None:
    """Exit 1 when a test failed under one of the versions."""
    versions = sys.argv[1:] or [oldest(), BEFORE_TELEMETRY, NEWEST]
    failures = [output for output in map(check, versions) if output]
    for output in failures:
        sys.stdout.write(output)
    raise SystemExit(1 if failures else 0)


if __name__ == "__main__":
    main()
