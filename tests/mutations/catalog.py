"""The catalog of mutations: small faults in SQL and Python, each with the tests that must catch it.

A mutation is an entry in a TOML file beside this module, one file a room. `find` stands in `file` exactly once, so that
an entry is noticed when the code that it changes is rewritten.
"""

import tomllib
from dataclasses import dataclass
from pathlib import Path

from tests.support.migrator import ROOT

CATALOG = Path(__file__).parent


class BadMutation(Exception):
    """An entry of the catalog that cannot be applied."""


@dataclass(frozen=True, slots=True)
class Mutation:
    """One fault: `file` with `replace` in place of `find`.

    tests: paths or ids for pytest, of which at least one must fail.
    equivalent: why no test can notice the fault; empty for a fault that a test must catch.
    """

    name: str
    file: str
    find: str
    replace: str
    tests: tuple[str, ...]
    equivalent: str = ""

    def mutated(self, root: Path) -> str:
        """Return the text of the file below root with the fault in it; raise BadMutation if it does not fit."""
        text = (root / self.file).read_text(encoding="utf-8")
        if text.count(self.find) != 1:
            raise BadMutation(f"{self.name}: {self.file} has {text.count(self.find)} times {self.find!r}, not once")
        if self.find == self.replace:
            raise BadMutation(f"{self.name}: find and replace are the same")
        return text.replace(self.find, self.replace)


def read_catalog() -> list[Mutation]:
    """Return every mutation, ordered by room; raise BadMutation if two have the same name."""
    entries = [
        entry for file in sorted(CATALOG.glob("*.toml")) for entry in tomllib.loads(file.read_text("utf-8"))["mutation"]
    ]
    found = [Mutation(**{**entry, "tests": tuple(entry["tests"])}) for entry in entries]
    names = [mutation.name for mutation in found]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise BadMutation(f"two mutations have one name: {', '.join(twice)}")
    return found


def check_catalog(mutations: list[Mutation], root: Path = ROOT) -> None:
    """Raise BadMutation for the first mutation that does not fit the checkout or one of whose tests is missing."""
    for mutation in mutations:
        mutation.mutated(root)
        for test in mutation.tests:
            if not _exists(test, root):
                raise BadMutation(f"{mutation.name}: there is no {test}")
        if not mutation.tests and not mutation.equivalent:
            raise BadMutation(f"{mutation.name}: name the tests that must catch it, or say why it is equivalent")


def _exists(test: str, root: Path) -> bool:
    """Return whether the path or id of a test names a file and, if it names one, a function in it."""
    path, _, function = test.partition("::")
    file = root / path
    name = function.partition("[")[0]
    return file.exists() and (not name or f"def {name}(" in file.read_text(encoding="utf-8"))
