"""Sealed events in sealed order, each with its proof."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple
from uuid import UUID

from services.cli.audit.paths import Place, RowTree, subtrees_of_path, tree_path
from services.cli.errors import CommandFailed
from services.shared import db
from services.shared.sealed_log.block import Block
from services.shared.sealed_log.contents import Group, Pass, fault_of, passes_of, sort_rows, sorter
from services.shared.sealed_log.database import LONG_SECONDS, Range, batches, read_blocks_of
from services.shared.sealed_log.note import Checkpoint
from services.shared.sealed_log.tree import HASH_BYTES, root_from_path, split

BATCH_ROWS = 10_000


@dataclass(frozen=True, slots=True)
class Question:
    """Filter of events: from_time up to but not including to_time, one tenant, one event."""

    from_time: datetime
    to_time: datetime
    tenant_id: str | None = None
    event_id: UUID | None = None
    block_no: int | None = None

    def as_filter(self) -> dict[str, str]:
        """Return the filter for the record of the read."""
        named = {
            "from": as_text(self.from_time),
            "to": as_text(self.to_time),
            "tenant": self.tenant_id,
            "event_id": None if self.event_id is None else str(self.event_id),
        }
        return {name: value for name, value in named.items() if value is not None}


@dataclass(frozen=True, slots=True)
class Head:
    """End of the evidence: a checkpoint, its note, and the snapshot of its last block."""

    checkpoint: Checkpoint
    note: str
    snapshot: str


class ProvenBlock(NamedTuple):
    """Block with the tree over its rows, its path to the checkpoint's root, and the first place of each transaction."""

    block: Block
    rows: RowTree
    path: list[bytes]
    starts: Mapping[int, int]


class ProvenEvent(NamedTuple):
    """Event as JSON, its block, and its place in the block."""

    block: ProvenBlock
    place: int
    event: str


@dataclass(frozen=True, slots=True)
class Evidence:
    """Answer to a question."""

    pool: db.Pool
    question: Question
    head: Head

    async def count(self) -> int:
        """Return the number of events."""
        asked = self.question
        return int(
            await self.pool.fetchval(
                "select audit.count_events($1, $2, $3, $4, $5)",
                self.head.snapshot,
                asked.from_time,
                asked.to_time,
                asked.tenant_id,
                asked.event_id,
                timeout=LONG_SECONDS,
            )
        )

    async def events(self) -> AsyncGenerator[ProvenEvent, None]:
        """Yield all events. Raises CommandFailed at a block whose rows are not those that were sealed."""
        only = self.question.block_no
        wanted = Range(
            0 if only is None else only,
            self.head.checkpoint.tree_size if only is None else only + 1,
            self.question.from_time,
            self.question.to_time,
        )
        async for batch in batches(read_blocks_of(self.pool, wanted), rows=BATCH_ROWS, whole_passes=False):
            async with aclosing(self._events_of(batch)) as events:
                async for event in events:
                    yield event

    async def _events_of(self, batch: Sequence[Block]) -> AsyncGenerator[ProvenEvent, None]:
        passes = passes_of(batch)
        first_to_see = sorter(passes)
        proven: dict[int, ProvenBlock] = {}
        async with aclosing(self._read(passes, batch)) as rows:
            async for row in rows:
                block = passes[first_to_see(row["xid"])].blocks[row["segment"]]
                if not proven:
                    proven = await self._prove(passes, batch)
                found = proven[block.block_no]
                yield ProvenEvent(found, found.starts[row["xid"]] + row["place"], row["event"])

    async def _read(self, passes: Sequence[Pass], batch: Sequence[Block]) -> AsyncGenerator[Mapping[str, Any], None]:
        """Yield rows in sealed order. A block that is too large for a batch is streamed."""
        segments = [block.segment for block in batch]
        asked = self.question
        async with self.pool.acquire(timeout=db.ACQUIRE_SECONDS) as connection, connection.transaction(readonly=True):
            cursor = connection.cursor(
                "select xid, segment, place, event from audit.read_events_between($1, $2, $3, $4, $5, $6, $7, $8)",
                passes[0].previous,
                passes[-1].text,
                min(segments),
                max(segments),
                asked.from_time,
                asked.to_time,
                asked.tenant_id,
                asked.event_id,
                prefetch=500,
                timeout=LONG_SECONDS,
            )
            first_to_see = sorter(passes)
            if len(batch) == 1:
                async for row in cursor:
                    if row["segment"] == batch[0].segment:
                        yield row
                return
            sorted_rows: dict[int, list[Any]] = {}
            async for row in cursor:
                block = passes[first_to_see(row["xid"])].blocks.get(row["segment"])
                if block is not None:
                    sorted_rows.setdefault(block.block_no, []).append(row)
        for number in sorted(sorted_rows):
            for row in sorted_rows[number]:
                yield row

    async def _prove(self, passes: Sequence[Pass], batch: Sequence[Block]) -> dict[int, ProvenBlock]:
        segments = [block.segment for block in batch]
        rows = await self.pool.fetch(
            "select xid, segment, leaves from audit.read_leaves($1, $2, $3, $4)",
            passes[0].previous,
            passes[-1].text,
            min(segments),
            max(segments),
            timeout=LONG_SECONDS,
        )
        contents = sort_rows(passes, rows)
        hashes = await self._read_hashes(batch)
        return {
            block.block_no: self._prove_block(block, contents[at, segment], hashes)
            for at, one in enumerate(passes)
            for segment, block in one.blocks.items()
            if (at, segment) in contents
        }

    async def _read_hashes(self, batch: Sequence[Block]) -> dict[Place, bytes]:
        size = self.head.checkpoint.tree_size
        asked = sorted({place for block in batch for place in subtrees_of_path(block.block_no, size)})
        rows = await self.pool.fetch(
            "select level, node_index, hash from audit.read_nodes($1, $2)",
            [level for level, _ in asked],
            [number for _, number in asked],
        )
        return {(row["level"], row["node_index"]): row["hash"] or b"" for row in rows}

    def _prove_block(self, block: Block, groups: Sequence[Group], hashes: Mapping[Place, bytes]) -> ProvenBlock:
        leaves = b"".join(group.leaves for group in groups)
        fault = fault_of(block, leaves)
        if fault is not None:
            raise CommandFailed(f"{fault}; run pulse audit verify")
        path = tree_path(block.block_no, self.head.checkpoint.tree_size, hashes)
        root = root_from_path(block.leaf(), block.block_no, self.head.checkpoint.tree_size, path)
        if root != self.head.checkpoint.root:
            raise CommandFailed(f"block {block.block_no} is not in the signed tree; run pulse audit verify")
        starts, start = {}, 0
        for group in groups:
            starts[group.xid] = start
            start += len(group.leaves) // HASH_BYTES
        return ProvenBlock(block, RowTree(split(leaves)), path, starts)


def as_text(time: datetime) -> str:
    """Format as RFC 3339 in UTC with microseconds."""
    return time.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
