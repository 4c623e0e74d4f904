"""Reads blocks from the database in pages, and cuts them into batches of whole passes."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime

from services.shared import db
from services.shared.sealed_log.block import Block

LONG_SECONDS = 24 * 3600.0
"""For statements whose time grows with the table."""


async def read_blocks(pool: db.Pool, first: int, end: int) -> AsyncIterator[Block]:
    """Blocks of rows from the first number up to before the end; holds no transaction open in between."""
    while first < end:
        page = await pool.fetch(
            "select * from audit.block_headers where block_no >= $1 and block_no < $2 and entry is null"
            " order by block_no limit 5000",
            first,
            end,
        )
        if not page:
            return
        for row in page:
            yield Block.read(row)
        first = page[-1]["block_no"] + 1


@dataclass(frozen=True, slots=True)
class Range:
    """Blocks to look for by the time of their events."""

    first_block: int
    end_block: int
    from_time: datetime
    to_time: datetime


async def read_blocks_of(pool: db.Pool, wanted: Range) -> AsyncIterator[Block]:
    """Blocks of a range that may hold events of its time, in order."""
    first = wanted.first_block
    while first < wanted.end_block:
        page = await pool.fetch(
            "select * from audit.block_headers where block_no >= $1 and block_no < $2 and entry is null"
            " and max_timestamp >= $3 and min_timestamp < $4 order by block_no limit 5000",
            first,
            wanted.end_block,
            wanted.from_time,
            wanted.to_time,
            timeout=LONG_SECONDS,
        )
        if not page:
            return
        for row in page:
            yield Block.read(row)
        first = page[-1]["block_no"] + 1


async def batches(blocks: AsyncIterator[Block], *, rows: int, whole_passes: bool) -> AsyncIterator[list[Block]]:
    """Lists of blocks whose passes follow each other; of at most so many rows, or of a single block or pass."""
    batch: list[Block] = []
    size = 0
    async for block in blocks:
        if batch:
            same = block.snapshot == batch[-1].snapshot
            follows = same or block.previous_snapshot == batch[-1].snapshot
            if not follows or (size + block.row_count > rows and not (same and whole_passes)):
                yield batch
                batch, size = [], 0
        batch.append(block)
        size += block.row_count
    if batch:
        yield batch
