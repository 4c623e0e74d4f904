"""Months that retention dropped: which blocks may have no rows any more, and who signed that."""

import base64
import binascii
import re
from collections.abc import AsyncIterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, Self

from services.shared import db
from services.shared.sealed_log.block import Block
from services.shared.sealed_log.broken import Broken
from services.shared.sealed_log.note import BadNote, VerifierKey, open_note
from services.shared.sealed_log.tree import Frontier

_TEXT = re.compile(
    r"(?P<origin>\S+)\n"
    r"tombstone (?P<segment>\d{4}-\d\d-\d\d)\n"
    r"blocks (?P<first>\d+)-(?P<last>\d+)\n"
    r"rows (?P<rows>\d+)\n"
    r"root (?P<root>\S+)\n"
    r"tree (?P<tree>\d+)\n"
    r"released (?P<released>\S+)\n",
    re.ASCII,
)


@dataclass(frozen=True, slots=True)
class ReleasedMonth:
    """A month's blocks from the first to the last, and the root over their leaf hashes."""

    segment: date
    first_block: int
    last_block: int
    row_count: int
    root: bytes

    @classmethod
    def open(cls, row: Mapping[str, Any], keys: Sequence[VerifierKey]) -> Self:
        """From a row of audit.tombstones. Raises Broken unless one of the keys signed it."""
        month = f"{row['segment']:%Y-%m}"
        try:
            text, key = open_note(row["note"], keys)
        except BadNote as fault:
            raise Broken(f"the tombstone of {month} is forged: {fault}", block_no=row["first_block"]) from None
        said = _TEXT.fullmatch(text)
        if said is None or said["origin"] != key.name or int(said["last"]) >= int(said["tree"]):
            raise Broken(f"the tombstone of {month} is no tombstone of this log", block_no=row["first_block"])
        try:
            root = base64.b64decode(said["root"], validate=True)
            segment = date.fromisoformat(said["segment"])
        except (ValueError, binascii.Error):
            raise Broken(f"the tombstone of {month} is unreadable", block_no=row["first_block"]) from None
        stone = cls(segment, int(said["first"]), int(said["last"]), int(said["rows"]), root)
        columns = tuple(row[name] for name in ("segment", "first_block", "last_block", "row_count"))
        if columns != (stone.segment, stone.first_block, stone.last_block, stone.row_count):
            raise Broken(f"the tombstone of {month} was altered: its note says otherwise", block_no=row["first_block"])
        return stone

    async def check(self, blocks: AsyncIterable[Mapping[str, Any]]) -> None:
        """Hold it against the month's blocks between its bounds, in order. Raises Broken."""
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
        """Whether the block's rows were released."""
        return block.segment == self.segment and self.first_block <= block.block_no <= self.last_block


async def read_tombstones(pool: db.Pool, keys: Sequence[VerifierKey]) -> list[ReleasedMonth]:
    """Every tombstone there is, each held against the blocks that it names. Raises Broken."""
    rows = await pool.fetch(
        "select segment, first_block, last_block, row_count, note from audit.log_tombstones"
        " order by segment, last_block"
    )
    stones = [ReleasedMonth.open(row, keys) for row in rows]
    for stone in stones:
        async with pool.acquire(timeout=db.ACQUIRE_SECONDS) as connection, connection.transaction(readonly=True):
            await stone.check(
                connection.cursor(
                    "select leaf_hash, row_count from audit.block_headers where segment = $1 and block_no >= $2"
                    " and block_no <= $3 order by block_no",
                    stone.segment,
                    stone.first_block,
                    stone.last_block,
                    prefetch=1000,
                )
            )
    return stones
