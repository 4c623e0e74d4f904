"""The repository's prose keeps the rates of plain technical English."""

from pathlib import Path

import pytest

from tests.support.migrator import ROOT
from tests.support.prose import Passage, matches, rates, read

# Frozen revisions keep their words, and third-party terms stand in the changelog as they were.
ROOMS = ("services", "exporter", "migrations", "sql", "docs", "deploy", "benchmarks", "tests")
FILES = ("README.md", "CONTRIBUTING.md", "sql/README.md")
MOST = {"who": 1.2, "of it": 0.1, "tell": 0.1, "nobody": 0.05, "question": 0.01, "noun phrase": 0.02}
"""Occurrences per 1,000 words, or the share of docstrings, as in pgqueuer, procrastinate and absurd."""


def is_frozen(passage: Passage) -> bool:
    """Return whether a passage is in a released revision, which never changes."""
    return passage.path.is_relative_to(ROOT / "migrations" / "versions")


@pytest.mark.parametrize("place", [*ROOMS, *FILES])
def test_prose_is_plain(place: str) -> None:
    """`python -m tests.support.prose PATH` names each line."""
    passages = [passage for passage in read([ROOT / place]) if not is_frozen(passage)]
    assert passages
    above = {name: rate for name, rate in rates(passages).items() if rate > MOST[name]}
    assert above == {}, f"python -m tests.support.prose {place} names the lines"


def test_each_pattern_is_found() -> None:
    path = Path("x.md")
    text = "Whoever reads it is told of it by nobody."
    found = {name: len(hits) for name, hits in matches([Passage(path, 1, text)]).items()}
    assert found == {"who": 1, "of it": 1, "tell": 1, "nobody": 1}
