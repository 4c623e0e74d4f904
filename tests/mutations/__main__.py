"""Apply mutations one by one and run the tests that must catch each: python -m tests.mutations [NAME…]."""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue

from tests.mutations.catalog import Mutation, check_catalog, read_catalog
from tests.support.migrator import ROOT

# Share of the mutations, without the equivalent ones, that the tests must catch.
REQUIRED = 0.95
# pytest's exit status when tests ran and at least one failed.
FAILED = 1
SECONDS = 900


@contextmanager
def checkouts(count: int) -> Iterator[SimpleQueue[Path]]:
    """Yield copies of the checkout's files that git knows or would add; each has the environment of this one."""
    listing = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    files = subprocess.run(listing, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    with tempfile.TemporaryDirectory(prefix="pulse-mutations-") as place:
        free: SimpleQueue[Path] = SimpleQueue()
        for number in range(count):
            copy = Path(place) / str(number)
            for file in filter(None, files.split("\0")):
                if (ROOT / file).is_file():
                    (copy / file).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy2(ROOT / file, copy / file)
            free.put(copy)
        yield free


def run_tests(checkout: Path, tests: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
    """Run tests in a checkout until the first one fails."""
    environment = {**os.environ, "PYTHONPATH": str(checkout), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-P", "-m", "pytest", "-x", "-q", "-n", "0", "-p", "no:cacheprovider", *tests]
    return subprocess.run(
        command, cwd=checkout, env=environment, check=False, capture_output=True, text=True, timeout=SECONDS
    )


def outcome(mutation: Mutation, free: SimpleQueue[Path]) -> str:
    """Apply a mutation in a free checkout, run its tests, undo it; return caught, survived or what went wrong."""
    checkout = free.get()
    file = checkout / mutation.file
    original = file.read_text(encoding="utf-8")
    try:
        file.write_text(mutation.mutated(checkout), encoding="utf-8")
        done = run_tests(checkout, mutation.tests)
    except subprocess.TimeoutExpired:
        return f"no result in {SECONDS} s"
    finally:
        file.write_text(original, encoding="utf-8")
        free.put(checkout)
    if done.returncode == FAILED:
        return "caught"
    return "survived" if done.returncode == 0 else f"pytest exits with {done.returncode}: {done.stdout[-2000:]}"


def select(mutations: list[Mutation], names: list[str]) -> list[Mutation]:
    """Return the mutations whose name, or whose file's path, contains one of the names. Without names, return all."""
    if not names:
        return mutations
    return [one for one in mutations if any(name in one.name or name in one.file for name in names)]


def main(arguments: list[str]) -> int:
    """Run the command; return its exit status."""
    parser = argparse.ArgumentParser(prog="pulse test --mutations", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="part of a mutation's name or of its file's path")
    parser.add_argument("--jobs", type=int, default=2, help="mutations at a time (default: 2)")
    parser.add_argument("--list", action="store_true", help="list the mutations, run nothing")
    options = parser.parse_args(arguments)
    mutations = select(read_catalog(), options.names)
    check_catalog(mutations)
    if options.list:
        sys.stdout.writelines(f"{one.name}  {one.file}\n" for one in mutations)
        return 0
    tried = [one for one in mutations if not one.equivalent]
    started, caught, failed = time.monotonic(), 0, []
    with checkouts(options.jobs) as free, ThreadPoolExecutor(options.jobs) as threads:
        for number, (one, result) in enumerate(
            zip(tried, threads.map(lambda x: outcome(x, free), tried), strict=True), 1
        ):
            caught += result == "caught"
            failed += [] if result == "caught" else [one]
            sys.stdout.write(f"{number}/{len(tried)} {one.name}: {result}\n")
            sys.stdout.flush()
    equivalent = len(mutations) - len(tried)
    sys.stdout.write(
        f"{caught} of {len(tried)} mutations caught in {time.monotonic() - started:.0f} s;"
        f" {equivalent} equivalent ones not tried\n"
    )
    sys.stdout.writelines(f"survived: {one.name} ({one.file}); expected in {', '.join(one.tests)}\n" for one in failed)
    return 0 if tried and caught >= REQUIRED * len(tried) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
