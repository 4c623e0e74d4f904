"""The check of the log against earlier signatures: the memory beside the key, and the anchors."""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from services.ops_worker.sealing.consistency import grew_from
from services.ops_worker.sealing.standing import LogBroken, check_head, check_installation, is_lost, two_histories
from services.shared.db import Connection, Pool
from services.shared.sealed_log.appending import AppendMemory
from services.shared.sealed_log.entry import Entry, Extent, open_entry
from services.shared.sealed_log.key_file import KeyFile
from services.shared.sealed_log.memory import Alarm, Intent, Memory, MemoryFault
from services.shared.sealed_log.note import BadNote, Checkpoint, open_checkpoint
from services.shared.sealed_log.tree import Frontier, root_of, split

log = logging.getLogger(__name__)

# A transaction is never divided, and a first pass reads everything before it. That may take hours.
LONGEST_READ_SECONDS = 24 * 3600.0
# Kinds of entries by which an operator continues a stopped log.
_ANSWERS = ("continued", "loss")


@dataclass(slots=True)
class History:
    """Earlier signatures. seen: the newest checkpoint known from an anchor or the log, not from the memory."""

    keys: KeyFile
    seen: Checkpoint | None = None
    is_anchored: bool = False
    """True if the anchors had checkpoints of any key when this process started."""
    _known: Memory = field(default_factory=Memory, init=False)
    _lost: frozenset[Checkpoint] = field(default=frozenset(), init=False)

    def newest(self) -> Checkpoint | None:
        """Return the largest committed checkpoint that is not declared lost."""
        return max(self._committed(), key=lambda one: one.tree_size, default=None)

    async def look_up(self, pool: Pool, head: Mapping[str, Any]) -> None:
        """Read the memory, and the entries that declare parts lost.

        Raises LogBroken, MemoryFault, SealingRefused.
        """
        self._known, self._lost = self.keys.memory.read(), frozenset()
        signed = self._known.checkpoint
        if signed is None or not _is_head(signed, head):
            check_installation(head, self._known.installation, self.keys)
        if self._known.is_missing and head["tree_size"] == 0:
            raise LogBroken(
                f"{self.keys.memory.path} is gone, and the database has no blocks: what the key signed is unknown; run "
                "`pulse audit declare-loss --reason TEXT`"
            )
        alarm = self._known.alarm
        doubtful = [
            one for one in (*self._known.checkpoints(), self.seen) if one is not None and not _is_head(one, head)
        ]
        if alarm is None and not doubtful:
            return
        entries = await self._read_entries(pool, head)
        if alarm is not None and not any(one.made_at > alarm.raised_at for one in entries if one.kind in _ANSWERS):
            raise LogBroken(alarm.message)
        self._lost = frozenset(one for one in doubtful if is_lost(one, entries))

    async def check(self, connection: Connection, head: Mapping[str, Any]) -> tuple[Frontier, AppendMemory]:
        """Return the frontier to append to, and the updated memory.

        The memory's pending checkpoint, if any, is not in the log and follows its head. Raises LogBroken, MemoryFault.
        """
        frontier = check_head(head, self.newest(), self.keys.verifiers())
        tree = Extent(frontier.size, frontier.root())
        for one in self._committed():
            if not await grew_from(connection, tree, Extent(one.tree_size, one.root)):
                raise LogBroken(two_histories(tree.tree_size, one.tree_size))
        pending = await self._settle_pending(connection, tree)
        note = head["note"]
        memory = Memory(note, pending, installation=head["installation_id"])
        if memory != self._known or self._known.is_missing:
            kept = await asyncio.to_thread(self.keys.memory.replace, self._known, memory)
            # If another process changed it first, the next append is refused and the next pass reads it again.
            self._known = kept or self._known
        if note is not None:
            self.seen = open_checkpoint(note, self.keys.verifiers())
        return frontier, AppendMemory(self.keys.memory, self._known, note, memory.installation)

    async def keep_alarm(self, message: str) -> None:
        """Keep the reason why nothing is signed, until an operator declares the loss."""
        try:
            known = self.keys.memory.read()
            if known.alarm is None:
                raised = replace(known, alarm=Alarm(message, datetime.now(UTC)))
                await asyncio.to_thread(self.keys.memory.replace, known, raised)
        except MemoryFault as fault:
            log.error("the alarm is not kept: %s", fault)  # noqa: TRY400  # the message says everything

    async def _settle_pending(self, connection: Connection, tree: Extent) -> Intent | None:
        """Return the signed checkpoint that is missing in the log, None if there is none. Raises LogBroken."""
        pending = self._known.pending
        if pending is None or pending.checkpoint in self._lost:
            return None
        if tree == pending.base:
            return pending
        signed = pending.checkpoint
        if signed.tree_size <= tree.tree_size:
            if not await grew_from(connection, tree, Extent(signed.tree_size, signed.root)):
                # The log grew out of the committed one: another process with the key appended first.
                log.warning(
                    "another process sealed first: the pending checkpoint over %d blocks is given up", signed.tree_size
                )
            return None
        raise LogBroken(two_histories(tree.tree_size, pending.base.tree_size))

    def _committed(self) -> list[Checkpoint]:
        known = (self._known.checkpoint, self.seen)
        return [one for one in known if one is not None and one not in self._lost]

    async def _read_entries(self, pool: Pool, head: Mapping[str, Any]) -> Sequence[Entry]:
        if head["entry"] is None:
            return []
        verifiers, entries = self.keys.verifiers(), []
        for (note,) in await pool.fetch("select * from audit.read_entries()"):
            with suppress(BadNote):  # an entry without a known signature settles nothing
                entries.append(open_entry(note, verifiers)[0])
        return entries


async def check_rows(connection: Connection, intent: Intent) -> None:
    """Check that the database has the rows of signed blocks. Raises LogBroken."""
    with_rows = [block for block in intent.blocks if block["entry"] is None]
    if not with_rows:
        return
    first = with_rows[0]
    rows = await connection.fetch(
        "select segment, leaves from audit.read_leaves($1, $2)",
        first["previous_snapshot"],
        first["snapshot"],
        timeout=LONGEST_READ_SECONDS,
    )
    found = {block["segment"]: b"" for block in with_rows}
    for row in rows:
        month = row["segment"].isoformat()
        found[month] = found.get(month, b"") + row["leaves"]
    if found.keys() != {block["segment"] for block in with_rows} or not all(
        _is_same(block, found[block["segment"]]) for block in with_rows
    ):
        raise LogBroken(
            f"the rows of block {first['block_no']}, signed and not committed, are not those that were signed: they "
            "were lost, or altered before they were sealed; run `pulse audit declare-loss --reason TEXT`"
        )


def _is_same(block: Mapping[str, Any], leaves: bytes) -> bool:
    return bool(root_of(split(leaves)).hex() == block["rows_root"])


def _is_head(checkpoint: Checkpoint, head: Mapping[str, Any]) -> bool:
    return (checkpoint.tree_size, checkpoint.root) == (head["tree_size"], head["root"])
