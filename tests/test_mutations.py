"""The mutations of tests/mutations fit the code, and the command that tries them reports survivors."""

from pathlib import Path

import pytest

from tests.mutations.__main__ import checkouts, outcome
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
@pytest.mark.parametrize(
    ("find", "replace", "expected"), [("!= 1:", "== 1:", "caught"), ("An entry of the", "An item of the", "survived")]
)
def test_a_caught_mutation_differs_from_one_that_survives(find: str, replace: str, expected: str) -> None:
    test = "tests/test_mutations.py::test_a_mutation_that_does_not_fit_is_an_error"
    mutation = Mutation("m", "tests/mutations/catalog.py", find, replace, (test,))
    with checkouts(1) as free:
        assert outcome(mutation, free) == expected
        copy = free.get() / mutation.file
        assert copy.read_text() == (ROOT / mutation.file).read_text()
