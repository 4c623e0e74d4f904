"""The mutations of tests/mutations fit the code, and the command that tries them notices what survives."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.mutations.catalog import BadMutation, Mutation, check_catalog, read_catalog
from tests.support.migrator import ROOT


def test_every_mutation_fits_the_code() -> None:
    mutations = read_catalog()
    check_catalog(mutations)
    assert len(mutations) >= 150


@pytest.mark.parametrize(
    ("find", "message"),
    [("", "has .* times"), ("no such text", "has 0 times"), ("import", "has .* times"), ("def twice(", "the same")],
)
def test_a_mutation_that_does_not_fit_is_an_error(tmp_path: Path, find: str, message: str) -> None:
    (tmp_path / "a.py").write_text("import x\nimport y\n\n\ndef twice(): ...\n")
    with pytest.raises(BadMutation, match=message):
        Mutation("m", "a.py", find, "def twice(", ()).mutated(tmp_path)


@pytest.mark.slow
def test_the_command_tells_a_caught_mutation_from_one_that_survives() -> None:
    """`harmless` changes a docstring of the catalog, and no test can notice that."""
    catch = subprocess.run(
        [sys.executable, "-m", "tests.mutations", "--jobs", "1", "backoff"],
        cwd=ROOT, check=False, capture_output=True, text=True,
    )  # fmt: skip
    assert catch.returncode == 0, catch.stdout + catch.stderr
