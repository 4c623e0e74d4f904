"""Retention of the audit trail: verifies an old month again, signs its tombstone and drops it.

oldest month to drop ─▶ hash its rows again ─▶ sign the tombstone ─▶ drop, all checked again under lock
                          │ altered                                    │ held, unsealed, different, busy
                          └──▶ keep it, raise the alarm                └──▶ next pass
"""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Any

from asyncpg import LockNotAvailableError

from services.ops_worker.acting import act_as_system
from services.ops_worker.lock_wait import LockWait
from services.ops_worker.sealing.anchors import Anchors
from services.ops_worker.sealing.standing import LogBroken, SealingRefused, check_key
from services.shared import tracing
from services.shared.db import Pool
from services.shared.sealed_log import tree
from services.shared.sealed_log.block import Block
from services.shared.sealed_log.key_file import KeyFault, KeyFile
from services.shared.sealed_log.note import BadNote
from services.shared.sealed_log.tombstone import Tombstone, open_tombstone

log = logging.getLogger(__name__)

# A call hashes a few hundred thousand rows a second. The leaf hashes take 32 bytes a row.
ROWS_PER_CALL = 100_000
# Counting the rows of a large month takes longer than any other call.
DROP_SECONDS = 600.0


@dataclass(slots=True)
class Proven:
    """The blocks of a month whose rows are the sealed ones."""

    first_block: int | None = None
    last_block: int = -1
    row_count: int = 0
    frontier: tree.Frontier = field(default_factory=tree.Frontier)

    def add(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Check and add blocks from audit.read_segment. Raises LogBroken."""
        for row in rows:
            block = Block.read(row)
            leaves = tree.split(row["leaves"] or b"")
            if len(leaves) != block.row_count or tree.root_of(leaves) != block.rows_root:
                raise LogBroken(f"the rows of block {block.block_no} are not those that were sealed")
            if block.leaf() != row["leaf_hash"]:
                raise LogBroken(f"block {block.block_no} is not the one that was sealed")
            if self.first_block is None:
                self.first_block = block.block_no
            self.last_block = block.block_no
            self.row_count += block.row_count
            for _ in self.frontier.append(row["leaf_hash"]):
                pass


@dataclass(slots=True)
class AuditRetention:
    """Drops at most one month a pass. days: age at which a month is dropped, 0 for never."""

    days: int
    keys: KeyFile
    anchors: Anchors
    _lock: LockWait = field(default_factory=lambda: LockWait("audit retention"), init=False)

    async def drop(self, pool: Pool) -> int:
        """Run one pass; return 1 if a month was dropped, 0 if none was due or its locks were busy."""
        with tracing.use_trace_id(None):
            async with act_as_system(pool) as connection:
                await connection.execute("select audit.set_retention($1)", self.days)
            if not await self._has_key(pool):
                return 0
            month = await pool.fetchrow("select segment, tree_size from audit.retention_candidate($1)", self.days)
            try:
                dropped = month is not None and await self._drop(pool, month["segment"], month["tree_size"])
                self._lock.end()
            except LockNotAvailableError as error:
                await self._lock.give_up(pool, error)
                dropped = False
            except LogBroken as broken:
                # No month is dropped while the alert is open, so that no evidence beside the altered month is lost.
                log.error("audit retention stops: %s", broken)  # noqa: TRY400  # the message says everything
                async with act_as_system(pool) as connection:
                    await connection.execute("select audit.report_broken_log($1)", str(broken))
                return 0
            if await self._hand_out(pool):
                async with act_as_system(pool) as connection:
                    await connection.execute("select audit.record_retention_run()")
        return int(dropped)

    async def _has_key(self, pool: Pool) -> bool:
        """Return whether this process can sign a tombstone, which takes the log's key.

        Return False while the sealer has stopped: the database then differs from the signed log.
        """
        key = self.keys.find()
        if self.keys.memory.read().alarm is not None or key is None:
            return False
        head = await pool.fetchrow("select * from audit.read_head()")
        try:
            return check_key(head, key, self.keys) is None
        except SealingRefused:
            return False

    async def _drop(self, pool: Pool, segment: date, tree_size: int) -> bool:
        note = await self.prove(pool, segment, tree_size)
        async with act_as_system(pool) as connection:
            outcome = await connection.fetchval(
                "select audit.drop_segment($1, $2, $3)", segment, self.days, note, timeout=DROP_SECONDS
            )
        if outcome == "altered":
            raise LogBroken(f"the month {segment:%Y-%m} has more or fewer rows than were sealed")
        log.info("month of the audit trail: %s", outcome, extra={"segment": str(segment)})
        return bool(outcome == "dropped")

    async def prove(self, pool: Pool, segment: date, tree_size: int) -> str | None:
        """Return the signed tombstone, None for a month without blocks. Raises LogBroken."""
        proven = Proven()
        while rows := await pool.fetch(
            "select * from audit.read_segment($1, $2, $3)", segment, proven.last_block, ROWS_PER_CALL
        ):
            await asyncio.to_thread(proven.add, rows)
        if proven.first_block is None:
            return None
        key = self.keys.find()
        if key is None:
            raise KeyFault(f"{self.keys.path} is gone")
        tombstone = Tombstone(
            origin=key.name,
            segment=segment,
            first_block=proven.first_block,
            last_block=proven.last_block,
            row_count=proven.row_count,
            root=proven.frontier.root(),
            tree_size=tree_size,
            released_at=datetime.now(UTC),
        )
        note = key.sign(tombstone.text())
        # The database cannot check a signature, so check here that the auditors' keys open the tombstone.
        open_tombstone(note, self.keys.verifiers())
        return note

    async def _hand_out(self, pool: Pool) -> bool:
        """Hand every tombstone signed by the log's keys to the anchors; return whether they have all tombstones."""
        verifiers = self.keys.verifiers()
        notes, false = [], 0
        for row in await pool.fetch("select segment, last_block, note from audit.read_tombstones()"):
            try:
                open_tombstone(row["note"], verifiers)
            except BadNote as fault:
                false += 1
                log.error("a tombstone is not valid: %s", fault, extra={"segment": str(row["segment"])})  # noqa: TRY400
            else:
                notes.append(row["note"])
        return await self.anchors.keep_tombstones(notes) and not false
