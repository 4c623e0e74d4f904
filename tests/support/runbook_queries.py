"""The queries and repairs of each section of docs/runbooks.md."""

import re
from dataclasses import dataclass
from functools import cache

from tests.support.migrator import ROOT

# A repair in SQL, quoted in a sentence.
_REPAIR = re.compile(r"`((?:select|vacuum|alter table|rollback prepared) [^`]*)`")


@dataclass(frozen=True, slots=True)
class Section:
    """One alert: its SQL blocks and the statements that its text quotes, without a semicolon at the end."""

    queries: tuple[str, ...]
    repairs: tuple[str, ...]


@cache
def sections() -> dict[str, Section]:
    """Return every section by the name of its alert."""
    text = (ROOT / "docs" / "runbooks.md").read_text(encoding="utf-8")
    parts = re.split(r"^### (\w+)\n", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], map(_read, parts[2::2]), strict=True))


def _read(text: str) -> Section:
    blocks = re.findall(r"^```sql\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    # A new chapter ends the section before it.
    prose = " ".join(re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL).partition("\n## ")[0].split())
    return Section(
        tuple(block.strip().removesuffix(";") for block in blocks),
        tuple(repair.strip().removesuffix(";") for repair in _REPAIR.findall(prose)),
    )
