"""The reading of blocks, rows and tombstones from the database.

Rows can be read as bytes and hashed here, so that no function of the database need be trusted: a manipulated
audit._leaf_hash could return the old hash of a changed row. This takes the table and Postgres' own functions only.
"""

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from hashlib import sha256
from itertools import groupby
from operator import itemgetter
from typing import Any

from services.shared import db
from services.shared.sealed_log.block import Block
from services.shared.sealed_log.contents import Snapshot
from services.shared.sealed_log.note import VerifierKey
from services.shared.sealed_log.tombstone import Tombstone

LONG_SECONDS = 24 * 3600.0
"""Timeout of statements whose time grows with the table."""
_BLOCKS = (
    "select * from audit.block_headers where block_no >= $1 and block_no < $2 and entry is null"
    " order by block_no limit 5000"
)
_BLOCKS_OF = (
    "select * from audit.block_headers where block_no >= $1 and block_no < $2 and entry is null"
    " and max_timestamp >= $3 and min_timestamp < $4 order by block_no limit 5000"
)
_TAG = b"\x00pulse.audit.row.v1"
_ROWS = """
select l.xid::text::bigint as xid, l.timestamp, l.tenant_id, l.event_id, record_send(row(
  l.tenant_id, l.timestamp, l.event_id, l.recorded_at, l.event_type, l.category, l.severity, l.entity_type, l.entity_id,
  l.entity_name, l.action, l.message, l.details, l.source_service, l.actor_type, l.actor_id, l.actor_name, l.ip_address,
  l.trace_id, l.duration_ms, l.xid)) as record
from public.audit_log l
where pg_visible_in_snapshot(l.xid, $1::text::pg_snapshot) and """
_BEGUN_AFTER = _ROWS + "l.xid >= $2::text::xid8 and l.xid < $3::text::xid8"
_OPEN_THEN = _ROWS + "l.xid = any ($2::text[]::xid8[])"


@dataclass(frozen=True, slots=True)
class Range:
    """A range of blocks and of the times of their events."""

    first_block: int
    end_block: int
    from_time: datetime
    to_time: datetime


async def read_blocks(pool: db.Pool, first: int, end: int) -> AsyncIterator[Block]:
    """Yield the blocks with rows from the first number up to, not including, the end, in no open transaction."""
    async for block in _read_blocks(pool, _BLOCKS, first, end):
        yield block


async def read_blocks_of(pool: db.Pool, wanted: Range) -> AsyncIterator[Block]:
    """Yield the blocks of a range that may hold events of its times, in order."""
    times = (wanted.from_time, wanted.to_time)
    async for block in _read_blocks(pool, _BLOCKS_OF, wanted.first_block, wanted.end_block, *times):
        yield block


async def _read_blocks(pool: db.Pool, query: str, first: int, end: int, *times: datetime) -> AsyncIterator[Block]:
    while first < end:
        page = await pool.fetch(query, first, end, *times, timeout=LONG_SECONDS)
        if not page:
            return
        for row in page:
            yield Block.read(row)
        first = page[-1]["block_no"] + 1


async def batches(blocks: AsyncIterator[Block], *, rows: int, whole_passes: bool) -> AsyncIterator[list[Block]]:
    """Yield lists of consecutive blocks with at most so many rows, or a single larger block or pass."""
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


async def read_raw(pool: db.Pool, previous: str, snapshot: str) -> Iterator[Mapping[str, Any]]:
    """Return the rows of audit.read_leaves: transaction, month, leaf hashes in sealed order."""
    before, after = Snapshot.parse(previous), Snapshot.parse(snapshot)
    async with pool.acquire(timeout=db.ACQUIRE_SECONDS) as connection, connection.transaction(readonly=True):
        await connection.execute("set local enable_seqscan = off")
        bounds = (str(before.xmax), str(after.xmax))
        rows = await connection.fetch(_BEGUN_AFTER, snapshot, *bounds, timeout=LONG_SECONDS)
        rows += await connection.fetch(_OPEN_THEN, snapshot, [str(xid) for xid in before.open], timeout=LONG_SECONDS)
    keyed = [
        (row["xid"], row["timestamp"], row["tenant_id"].encode(), row["event_id"].bytes, row["record"]) for row in rows
    ]
    # The time determines the month, so this is the order within a block.
    keyed.sort(key=itemgetter(0, 1, 2, 3))
    return (
        {"xid": xid, "segment": segment, "leaves": b"".join(sha256(_TAG + row[4]).digest() for row in group)}
        for (xid, segment), group in groupby(keyed, key=lambda row: (row[0], date(row[1].year, row[1].month, 1)))
    )


async def read_tombstones(pool: db.Pool, keys: Sequence[VerifierKey]) -> list[Tombstone]:
    """Return every tombstone, checked against the blocks that it names. Raises Broken."""
    rows = await pool.fetch(
        "select segment, first_block, last_block, row_count, note from audit.log_tombstones"
        " order by segment, last_block"
    )
    stones = [Tombstone.read(row, keys) for row in rows]
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
