"""The verification of the audit trail.

blocks, tree, checkpoints ─▶ rows hashed anew, by block ─▶ blocks without rows: a tombstone? ─▶ rows counted
  one snapshot; a fault here    two connections, no transaction   retention may have dropped       by a full scan,
  ends it: no block is trusted  held open: blocks never change    a month meanwhile                without any index
"""

import asyncio
import time
from array import array
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any

from services.shared import db
from services.shared.sealed_log.block import Block, Broken
from services.shared.sealed_log.chain import Chain
from services.shared.sealed_log.chain_reading import read_chain, read_recent_chain
from services.shared.sealed_log.contents import compare, count_of, name_of, passes_of, sort_rows
from services.shared.sealed_log.database import LONG_SECONDS, batches, read_blocks, read_raw, read_tombstones
from services.shared.sealed_log.entry import Entry
from services.shared.sealed_log.kept import Kept
from services.shared.sealed_log.note import VerifierKey
from services.shared.sealed_log.tombstone import Tombstone
from services.shared.sealed_log.tree import HASH_BYTES

BATCH_ROWS = 50_000
CONNECTIONS = 2
MOST_FAULTS = 100
"""Further faults are counted, not listed."""


@dataclass(slots=True)
class Report:
    """The result. rows: present sealed ones; released: dropped with a tombstone; compared: checked with an export."""

    blocks: int = 0
    rows: int = 0
    hashed: int = 0
    released: int = 0
    unsealed: int = 0
    unsealed_since: datetime | None = None
    checkpoints: int = 0
    compared: int = 0
    entries: Sequence[Entry] = ()
    fault_count: int = 0
    faults: list[Broken] = field(default_factory=list)

    def add(self, fault: Broken) -> None:
        """Add a fault."""
        self.fault_count += 1
        if len(self.faults) < MOST_FAULTS:
            self.faults.append(fault)


@dataclass(slots=True)
class Verification:
    """One run. begin: called with the number of rows to hash; advance: with the number of rows hashed since.

    independent: hash rows here and trust no function of the database. in_background: use one connection, rest after
    each batch for as long as it took, check the newest signature only, and with `since` read nothing older.
    """

    pool: db.Pool
    keys: Sequence[VerifierKey]
    kept: Sequence[Kept]
    since: datetime | None = None
    independent: bool = False
    begin: Callable[[int], None] = lambda _: None
    advance: Callable[[int], None] = lambda _: None
    in_background: bool = False
    report: Report = field(default_factory=Report)
    _empty: "array[int]" = field(default_factory=lambda: array("q"))

    async def run(self) -> Report:
        """Verify everything, or up to the fault after which nothing can be trusted."""
        self.report.checkpoints = len(self.kept)
        try:
            is_recent = self.in_background and self.since is not None
            chain = await self._read_chain()
            self.report.blocks = chain.size
            self.report.entries = chain.entries
            if chain.last is not None:
                await self._check_rows(chain, [] if is_recent else await self._read_tombstones())
                await self._check_empty()
            if not is_recent:
                await self._check_counts(chain)
        except Broken as fault:
            self.report.add(fault)
        self.report.faults.sort(key=lambda fault: -1 if fault.block_no is None else fault.block_no)
        return self.report

    async def _read_chain(self) -> Chain:
        if self.in_background and self.since is not None:
            return await read_recent_chain(self.pool, self.keys, self.kept, self.since)
        chain = Chain(self.keys, self.kept, self.since, only_newest_signature=self.in_background)
        return await read_chain(self.pool, chain)

    async def _read_tombstones(self) -> list[Tombstone]:
        stones = await read_tombstones(self.pool, self.keys)
        self.report.released = sum(stone.row_count for stone in stones)
        return stones

    async def _check_rows(self, chain: Chain, stones: Sequence[Tombstone]) -> None:
        first = chain.size if chain.first_since is None else chain.first_since
        position = await self.pool.fetchval("select first_position from audit.block_headers where block_no = $1", first)
        self.begin(0 if position is None else chain.rows - position)
        source = batches(read_blocks(self.pool, first, chain.size), rows=BATCH_ROWS, whole_passes=True)
        turn = asyncio.Lock()

        async def work() -> None:
            while True:
                async with turn:
                    batch = await anext(source, None)
                if batch is None:
                    return
                await self._check_batch(batch, stones)

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(1 if self.in_background else CONNECTIONS):
                    group.create_task(work())
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from errors

    async def _check_batch(self, batch: list[Block], stones: Sequence[Tombstone]) -> None:
        started = time.monotonic()
        passes = passes_of(batch)
        rows = await self._read(passes[0].previous, passes[-1].text)
        contents = sort_rows(passes, rows)
        for found in compare(passes, contents, stones):
            if isinstance(found, Broken):
                self.report.add(found)
            else:
                self._empty.append(found.block_no)
        self.report.hashed += sum(len(row["leaves"]) for row in rows) // HASH_BYTES
        self.advance(sum(block.row_count for block in batch))
        if self.in_background:
            await asyncio.sleep(time.monotonic() - started)

    async def _read(self, previous: str, snapshot: str) -> Sequence[Mapping[str, Any]]:
        if self.independent:
            return list(await read_raw(self.pool, previous, snapshot))
        rows: Sequence[Mapping[str, Any]] = await self.pool.fetch(
            "select xid, segment, leaves from audit.read_leaves($1, $2)", previous, snapshot, timeout=LONG_SECONDS
        )
        return rows

    async def _check_empty(self) -> None:
        """Check blocks without rows against the tombstones of now, because retention may drop a month meanwhile."""
        if not self._empty:
            return
        stones = await self._read_tombstones()
        for number in self._empty:
            async for block in read_blocks(self.pool, number, number + 1):
                if not any(stone.covers(block) for stone in stones):
                    self.report.add(
                        Broken(
                            f"{name_of(block)} should have {count_of(block.row_count)} and has none: they were "
                            "removed, and no tombstone says why",
                            block_no=number,
                        )
                    )

    async def _check_counts(self, chain: Chain) -> None:
        while True:
            before = await self._read_tombstones()
            counts = await self.pool.fetch(
                "select * from audit.count_rows($1)",
                chain.last.snapshot if chain.last else "1:1:",
                timeout=LONG_SECONDS,
            )
            if before == await self._read_tombstones():
                break
        there = {row["segment"]: row for row in counts}
        expected = Counter(chain.rows_by_segment)
        for stone in before:
            expected[stone.segment] -= stone.row_count
        for segment in sorted({*there, *expected}):
            self._compare_month(segment, expected[segment], there.get(segment))

    def _compare_month(self, segment: date, expected: int, row: Any) -> None:
        found = 0 if row is None else row["sealed"]
        self.report.rows += found
        if row is not None:
            self.report.unsealed += row["unsealed"]
            times = [time for time in (self.report.unsealed_since, row["unsealed_since"]) if time is not None]
            self.report.unsealed_since = min(times, default=None)
            if row["impossible"]:
                self.report.add(
                    Broken(
                        f"event {row['impossible_event']} of {segment:%Y-%m} names a transaction that has not ended: "
                        f"{count_of(row['impossible'])} forged, or the database is a copy on another server"
                    )
                )
        # For a hashed month the fault is already reported in more detail.
        if found != expected and not self.report.faults:
            self.report.add(
                Broken(
                    f"{segment:%Y-%m} has {count_of(found)} of transactions that were sealed, and its blocks hold "
                    f"{expected:,}; without --since the block is named"
                )
            )
