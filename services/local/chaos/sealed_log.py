"""Hashes the whole trail anew and compares it with every checkpoint that was anchored."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import asyncpg

from services.local.chaos.judgement import Broken
from services.ops_worker.sealing import tree
from services.ops_worker.sealing.block import Block
from services.ops_worker.sealing.key_file import read_verifiers
from services.ops_worker.sealing.note import BadNote, Checkpoint, open_checkpoint, split_notes

_BLOCKS = """
select block_no, segment, previous_snapshot::text, snapshot::text, first_position, row_count, min_timestamp,
  max_timestamp, rows_root, sealed_at, epoch
from audit.blocks
order by block_no
"""
_LEAVES = """
select string_agg(audit._leaf_hash(l), ''::bytea order by l.xid, l.timestamp, l.tenant_id collate "C", l.event_id)
from audit._rows_between($1::text::pg_snapshot, $2::text::pg_snapshot) l
where audit._segment(l.timestamp) = $3
"""


@dataclass(frozen=True, slots=True)
class SealedLog:
    """What is sealed, what was anchored, and what is wrong with it."""

    blocks: int
    rows: int
    epochs: int
    checkpoints: int
    broken: Sequence[Broken]


async def verify_log(connection: asyncpg.Connection, *, anchors: Path, public_keys: Path) -> SealedLog:
    """Verify everything; the connection is a superuser's and nobody writes meanwhile."""
    broken: list[Broken] = []
    frontier = tree.Frontier()
    roots = [frontier.root()]
    rows = 0
    epochs = set()
    for record in await connection.fetch(_BLOCKS):
        block = Block.read(record)
        leaves = await connection.fetchval(_LEAVES, block.previous_snapshot, block.snapshot, block.segment)
        split = tree.split(leaves or b"")
        if tree.root_of(split) != block.rows_root or len(split) != block.row_count:
            broken.append(Broken("block differs from its rows", f"block {block.block_no}"))
        if (block.block_no, block.first_position) != (len(roots) - 1, rows):
            broken.append(Broken("sealed order has a gap", f"block {block.block_no} begins at {block.first_position}"))
        for _ in frontier.append(block.leaf()):
            pass
        roots.append(frontier.root())
        rows += block.row_count
        epochs.add(block.epoch)
    stored = await connection.fetchval("select count(*) from public.audit_log")
    if stored != rows:
        broken.append(Broken("rows outside of the sealed order", f"{stored} rows, {rows} sealed"))
    notes = _read_notes(anchors)
    keys = read_verifiers(public_keys)
    for note in notes:
        try:
            fault = _find_fault(open_checkpoint(note, keys), roots)
        except BadNote as bad:
            fault = str(bad)
        if fault is not None:
            broken.append(Broken("anchored checkpoint does not hold", fault))
    if not notes:
        broken.append(Broken("anchored checkpoint does not hold", "there is none"))
    return SealedLog(len(roots) - 1, rows, len(epochs), len(notes), broken)


def _read_notes(anchors: Path) -> list[str]:
    return [note for file in sorted(anchors.glob("checkpoints-*.log")) for note in split_notes(file.read_text())]


def _find_fault(checkpoint: Checkpoint, roots: Sequence[bytes]) -> str | None:
    size = checkpoint.tree_size
    if size >= len(roots):
        return f"one of {size} blocks was signed, there are {len(roots) - 1}"
    return None if roots[size] == checkpoint.root else f"the one of {size} blocks has another root"
