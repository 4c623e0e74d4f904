"""The comparison of a block's expected rows with its present ones."""

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any, NamedTuple, Self

from services.shared.sealed_log.block import Block, Broken
from services.shared.sealed_log.chain import in_words
from services.shared.sealed_log.tombstone import Tombstone
from services.shared.sealed_log.tree import HASH_BYTES, root_of, split


class Snapshot(NamedTuple):
    """A snapshot of Postgres, which decides which transactions are visible."""

    xmax: int
    open: frozenset[int]

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `xmin:xmax:xip,…`."""
        _, xmax, in_progress = text.split(":")
        return cls(int(xmax), frozenset(map(int, filter(None, in_progress.split(",")))))


@dataclass(slots=True)
class Pass:
    """The blocks between the same two snapshots, one a month."""

    previous: str
    text: str
    snapshot: Snapshot
    blocks: dict[date, Block] = field(default_factory=dict)


class Group(NamedTuple):
    """The rows of one transaction in a block. leaves: their leaf hashes, concatenated."""

    xid: int
    leaves: bytes


Contents = dict[tuple[int, date], list[Group]]
"""The present rows by number of the pass and month, in sealed order."""


def passes_of(blocks: Iterable[Block]) -> list[Pass]:
    """Group consecutive blocks by the passes that made them."""
    passes: list[Pass] = []
    for block in blocks:
        if not passes or passes[-1].text != block.snapshot:
            passes.append(Pass(block.previous_snapshot, block.snapshot, Snapshot.parse(block.snapshot)))
        passes[-1].blocks[block.segment] = block
    return passes


def sorter(passes: Sequence[Pass]) -> Callable[[int], int]:
    """Return a function that finds the first pass to see a transaction that the last pass sees."""
    ends = [one.snapshot.xmax for one in passes]

    def first_to_see(xid: int) -> int:
        at = bisect_right(ends, xid)
        while xid in passes[at].snapshot.open:
            at += 1
        return at

    return first_to_see


def sort_rows(passes: Sequence[Pass], rows: Iterable[Mapping[str, Any]]) -> Contents:
    """Assign the rows of audit.read_leaves between the outer snapshots to their passes."""
    first_to_see = sorter(passes)
    contents: Contents = {}
    for row in rows:
        group = Group(row["xid"], row["leaves"])
        contents.setdefault((first_to_see(group.xid), row["segment"]), []).append(group)
    return contents


def compare(passes: Sequence[Pass], contents: Contents, stones: Sequence[Tombstone]) -> Iterator[Broken | Block]:
    """Yield the faults in the rows of these passes, and each block that has neither rows nor a tombstone."""
    for at, one in enumerate(passes):
        for segment, block in one.blocks.items():
            groups = contents.pop((at, segment), None)
            released = any(stone.covers(block) for stone in stones)
            if groups is None:
                if not released:
                    yield block
            elif released:
                yield Broken(f"{name_of(block)} was released, but still has rows", block_no=block.block_no)
            elif (fault := fault_of(block, b"".join(group.leaves for group in groups))) is not None:
                yield fault
    for (at, segment), groups in contents.items():
        count = sum(len(group.leaves) for group in groups) // HASH_BYTES
        number = next(iter(passes[at].blocks.values())).block_no
        yield Broken(
            f"{count_of(count)} of transaction {groups[0].xid} in {segment:%Y-%m} in no block, "
            f"although block {number} was sealed after that transaction: inserted without the sealer",
            block_no=number,
        )


def fault_of(block: Block, leaves: bytes) -> Broken | None:
    """Return the fault in a block's rows, None if they are the sealed ones."""
    found = len(leaves) // HASH_BYTES
    if found == block.row_count and root_of(split(leaves)) == block.rows_root:
        return None
    if found < block.row_count:
        what = f"should have {count_of(block.row_count)} and has {found}: {block.row_count - found} removed"
    elif found > block.row_count:
        what = f"should have {count_of(block.row_count)} and has {found}: {found - block.row_count} added"
    else:
        what = f"has {count_of(found)} as it should, and not those that were sealed: at least one was altered"
    return Broken(f"{name_of(block)} {what}", block_no=block.block_no)


def name_of(block: Block) -> str:
    """Return a readable name of a block."""
    return (
        f"block {block.block_no} (events from {in_words(block.min_timestamp)} to {in_words(block.max_timestamp)}, "
        f"sealed {in_words(block.sealed_at)})"
    )


def count_of(rows: int) -> str:
    """Return a number of rows in words."""
    return f"{rows:,} row{'' if rows == 1 else 's'}"
