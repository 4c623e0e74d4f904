"""Appends blocks and entries to the log in the database, with the checkpoint over all."""

import asyncio
from collections import deque
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from itertools import groupby
from typing import Any

from services.shared.db import Connection
from services.shared.sealed_log import tree
from services.shared.sealed_log.block import Block
from services.shared.sealed_log.entry import Entry, Extent
from services.shared.sealed_log.memory import Intent, Memory, MemoryFile
from services.shared.sealed_log.note import Checkpoint, SignerKey

_EVENTS = {"key": "audit.key_changed", "loss": "audit.loss_declared"}


@dataclass(frozen=True, slots=True)
class AppendMemory:
    """The sealer's memory during an append.

    head: note over the present blocks, None without any. installation: id of the log's installation.
    """

    file: MemoryFile
    known: Memory
    head: str | None
    installation: str | None


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to append. number: a fence that each new holder raises."""

    holder: str
    number: int


@dataclass(frozen=True, slots=True)
class Appender:
    """Appends to one state of the log, by one holder of the lease. frontier: the tree over the present blocks."""

    connection: Connection
    lease: Lease
    frontier: tree.Frontier
    memory: AppendMemory

    async def append(
        self, blocks: Sequence[Block], key: SignerKey, *, event: Mapping[str, Any] | None = None
    ) -> Checkpoint | None:
        """Sign and append blocks; return None if another process appended first. Raises MemoryFault."""
        memory = self.memory
        base = Extent(self.frontier.size, self.frontier.root())
        intent = sign(base, deepcopy(self.frontier), blocks, key, event)
        kept = await asyncio.to_thread(
            memory.file.replace, memory.known, Memory(memory.head, intent, None, memory.installation)
        )
        if kept is None:
            return None
        return await replace(self, memory=replace(memory, known=kept)).append_intent(intent)

    async def append_intent(self, intent: Intent) -> Checkpoint | None:
        """Append the pending blocks of the memory, possibly again; return None if another process appended first."""
        nodes = [node for block in intent.blocks for node in self.frontier.append(bytes.fromhex(block["leaf_hash"]))]
        appended: bool = await self.connection.fetchval(
            "select audit.append_blocks($1, $2, $3, $4, $5, $6, $7, $8)",
            self.lease.holder,
            self.lease.number,
            intent.blocks,
            [node.level for node in nodes],
            [node.number for node in nodes],
            [node.hash for node in nodes],
            intent.signed,
            intent.event,
        )
        if not appended:
            return None
        memory = self.memory
        # Another process with the same file may have seen the commit and replaced it already.
        await asyncio.to_thread(
            memory.file.replace, memory.known, Memory(intent.signed["note"], installation=memory.installation)
        )
        return intent.checkpoint

    async def append_entry(
        self, entry: Entry, key: SignerKey, *, snapshot: str, actor_type: str = "service"
    ) -> Checkpoint | None:
        """Append an entry and its audit event; return None if another process appended first."""
        note = key.sign(entry.text())
        block = Block.of_entry(
            entry.size,
            note=note,
            snapshot=snapshot,
            position=entry.row_count,
            made_at=entry.made_at,
            lease=self.lease.number,
        )
        event = {
            "event_type": _EVENTS.get(entry.kind, "audit.log_continued"),
            "entity_type": "signing_key" if entry.kind == "key" else "audit_log",
            "entity_id": key.verifier.key_id if entry.kind == "key" else str(entry.after.epoch),
            "message": f"The log {entry.in_words()}",
            "details": {"entry": note, "block_no": entry.size},
            "source_service": "ops_worker" if actor_type == "service" else "pulse_audit",
            "actor_type": actor_type,
            "actor_id": entry.actor,
        }
        return await self.append([block], key, event=event)


def sign(
    base: Extent,
    frontier: tree.Frontier,
    blocks: Sequence[Block],
    key: SignerKey,
    event: Mapping[str, Any] | None,
) -> Intent:
    """Return the signed checkpoint over a frontier and further blocks, which are added to the frontier."""
    for block in blocks:
        deque(frontier.append(block.leaf()), maxlen=0)
    rows = blocks[-1].first_position + blocks[-1].row_count
    checkpoint = Checkpoint(key.name, frontier.size, frontier.root(), rows, datetime.now(UTC))
    signed = {
        "tree_size": checkpoint.tree_size,
        "root": checkpoint.root.hex(),
        "row_count": checkpoint.row_count,
        "signed_at": checkpoint.signed_at.isoformat(),
        "key_id": key.verifier.key_id,
        "key_name": key.name,
        "public_key": key.verifier.public_key.hex(),
        "note": key.sign(checkpoint.text()),
    }
    return Intent(base, [_as_json(block) for block in blocks], event, signed)


def make_blocks(pieces: Sequence[Mapping[str, Any]], *, first: int, position: int, epoch: int) -> list[Block]:
    """Return the blocks of one pass, from the rows of audit.read_unsealed."""
    blocks = []
    months = groupby(pieces, key=lambda piece: piece["segment"])
    for number, (segment, grouped) in enumerate(months, start=first):
        month = list(grouped)
        block = Block(
            block_no=number,
            segment=segment,
            previous_snapshot=month[0]["previous_snapshot"],
            snapshot=month[0]["snapshot"],
            first_position=position,
            row_count=sum(piece["row_count"] for piece in month),
            min_timestamp=min(piece["min_timestamp"] for piece in month),
            max_timestamp=max(piece["max_timestamp"] for piece in month),
            # Each piece but the last is a complete subtree, so the root over their roots is the root over all leaves.
            rows_root=tree.root_of([tree.root_of(tree.split(piece["leaves"])) for piece in month]),
            sealed_at=month[0]["sealed_at"],
            epoch=epoch,
        )
        blocks.append(block)
        position += block.row_count
    return blocks


def _as_json(block: Block) -> dict[str, Any]:
    values = {name: getattr(block, name) for name in Block.__slots__}
    times = {name: value.isoformat() for name, value in values.items() if isinstance(value, date)}
    return {**values, **times, "rows_root": block.rows_root.hex(), "leaf_hash": block.leaf().hex()}
