"""The tombstone of a month that retention dropped: a note signed by the log's key.

pulse.example/audit
tombstone 2025-01-01
blocks 17-4711
rows 1234567
root UmZjIDY5NjIgcm9vdCBvdmVyIHRoZSBibG9ja3MhISE=
tree 98765
released 2026-03-05T12:00:00.000000Z

— pulse.example/audit Az3grj…
"""

import base64
import re
from collections.abc import AsyncIterable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any, Self

from services.shared.sealed_log.block import Block, Broken
from services.shared.sealed_log.note import BadNote, VerifierKey, open_note
from services.shared.sealed_log.tree import Frontier

_TEXT = re.compile(
    r"(?P<origin>.+)\ntombstone (?P<segment>.+)\nblocks (?P<first>\d+)-(?P<last>\d+)\nrows (?P<rows>\d+)\n"
    r"root (?P<root>.+)\ntree (?P<tree>\d+)\nreleased (?P<released>.+)\n",
    re.ASCII,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tombstone:
    """The statement that the month's blocks from first to last have lost their rows.

    root: RFC 6962 root over the leaf hashes of exactly these blocks. tree_size: blocks of the signed tree at release.
    """

    origin: str
    segment: date
    first_block: int
    last_block: int
    row_count: int
    root: bytes
    tree_size: int
    released_at: datetime

    def text(self) -> str:
        """Return the signed text."""
        released_at = self.released_at.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        return (
            f"{self.origin}\ntombstone {self.segment.isoformat()}\nblocks {self.first_block}-{self.last_block}\n"
            f"rows {self.row_count}\nroot {base64.b64encode(self.root).decode()}\ntree {self.tree_size}\n"
            f"released {released_at}\n"
        )

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the tombstone in a signed text. Raises BadNote."""
        found = _TEXT.fullmatch(text)
        if found is None:
            raise BadNote("the note is no tombstone")
        try:
            tombstone = cls(
                origin=found["origin"],
                segment=date.fromisoformat(found["segment"]),
                first_block=int(found["first"]),
                last_block=int(found["last"]),
                row_count=int(found["rows"]),
                root=base64.b64decode(found["root"], validate=True),
                tree_size=int(found["tree"]),
                released_at=datetime.fromisoformat(found["released"]),
            )
        except ValueError:
            raise BadNote("the note is no tombstone") from None
        if len(tombstone.root) != 32 or tombstone.text() != text:
            raise BadNote("the note is no tombstone of this log")
        return tombstone

    @classmethod
    def read(cls, row: Mapping[str, Any], keys: Iterable[VerifierKey]) -> Self:
        """Return the tombstone in a row of audit.tombstones. Raises Broken unless a key signed its columns."""
        month, first = f"{row['segment']:%Y-%m}", row["first_block"]
        try:
            text, key = open_note(row["note"], keys)
        except BadNote as fault:
            raise Broken(f"the tombstone of {month} is forged: {fault}", block_no=first) from None
        try:
            stone = cls.parse(text)
        except BadNote:
            raise Broken(f"the tombstone of {month} is no tombstone of this log", block_no=first) from None
        if stone.origin != key.name or stone.last_block >= stone.tree_size:
            raise Broken(f"the tombstone of {month} is no tombstone of this log", block_no=first)
        columns = (row["segment"], first, row["last_block"], row["row_count"])
        if columns != (stone.segment, stone.first_block, stone.last_block, stone.row_count):
            raise Broken(f"the tombstone of {month} was altered: its note says otherwise", block_no=first)
        return stone

    async def check(self, blocks: AsyncIterable[Mapping[str, Any]]) -> None:
        """Check the tombstone against the month's blocks between its bounds, in order. Raises Broken."""
        frontier, rows = Frontier(), 0
        async for block in blocks:
            for _ in frontier.append(block["leaf_hash"]):
                pass
            rows += block["row_count"]
        if (frontier.root(), rows) != (self.root, self.row_count):
            raise Broken(
                f"the tombstone of {self.segment:%Y-%m} is not about blocks {self.first_block} to {self.last_block}",
                block_no=self.first_block,
            )

    def covers(self, block: Block) -> bool:
        """Return whether the block's rows were released."""
        return block.segment == self.segment and self.first_block <= block.block_no <= self.last_block


def open_tombstone(note: str, keys: Iterable[VerifierKey]) -> Tombstone:
    """Return the tombstone in a note that one of the keys signed under its own name. Raises BadNote."""
    text, key = open_note(note, keys)
    tombstone = Tombstone.parse(text)
    if tombstone.origin != key.name:
        raise BadNote(f"the tombstone is of {tombstone.origin}, its signature of {key.name}")
    return tombstone
