"""Links of the pages lead somewhere, the tests that they name exist, and the index of docs/ is complete."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.migrator import ROOT

PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "sql" / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
]
BLOCK = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?!\w+:)([^)#\s]*)#?([^)\s]*)\)")


def prose(page: Path) -> str:
    """Return a page without its blocks of code."""
    return BLOCK.sub("", page.read_text(encoding="utf-8"))


def anchors(page: Path) -> Iterator[str]:
    """Yield the anchors that GitHub gives to the headings of a page, and those that the page sets itself."""
    text = prose(page)
    for heading in re.findall(r"^#+ (.*)$", text, re.MULTILINE):
        yield re.sub(r"[^\w -]", "", heading.strip().lower()).replace(" ", "-")
    yield from re.findall(r'<a id="([^"]+)">', text)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_link_leads_somewhere(page: Path) -> None:
    broken = []
    for path, anchor in LINK.findall(prose(page)):
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(f"{path}#{anchor}" if anchor else path)
    assert broken == []


def test_the_index_lists_every_page() -> None:
    index = ROOT / "docs" / "README.md"
    listed = {path for path, _ in LINK.findall(prose(index))}
    there = {path.name for path in (ROOT / "docs").iterdir() if path.is_file()} - {index.name}
    assert len(there) > 10
    assert there - listed == set()


def test_every_test_that_a_page_names_exists() -> None:
    """docs/security.md names the tests of each promise."""
    tests = {path.stem: path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py")}
    named = {
        (page.name, module, function)
        for page in PAGES
        for module, function in re.findall(r"\b(test_\w+)(?:\.py)?(?:::(\w+))?", page.read_text(encoding="utf-8"))
    }
    assert len({module for _, module, _ in named}) > 30
    assert {
        (page, module, function)
        for page, module, function in named
        if module not in tests or (function and f"def {function}(" not in tests[module])
    } == set()
