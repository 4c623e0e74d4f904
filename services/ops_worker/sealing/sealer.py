"""Seals the audit trail: takes committed rows, hashes them into blocks, blocks into the tree, signs the root.

lease ─▶ read head and unsealed rows (one snapshot) ─▶ hash, sign (no transaction open) ─▶ append, fenced
  │ another's                                                                                │ another was first
  └──▶ wait                                                                                  └──▶ next pass
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import groupby
from typing import Any

import asyncpg

from services.ops_worker.acting import act_as_system
from services.ops_worker.sealing import tree
from services.ops_worker.sealing.block import Block
from services.ops_worker.sealing.key_file import KeyFault, KeyFile
from services.ops_worker.sealing.note import BadNote, Checkpoint, SignerKey, open_checkpoint
from services.shared import tracing
from services.shared.db import ACQUIRE_SECONDS, UNAVAILABLE, Connection, Pool

log = logging.getLogger(__name__)

# One transaction is never cut in two, and a first pass finds all that was there before: hours, at worst.
LONGEST_READ_SECONDS = 24 * 3600.0


class LogBroken(Exception):
    """The log in the database contradicts what was signed; nothing is added to it."""


@dataclass(slots=True)
class Sealer:
    """One process's sealer. A pass seals at most about rows_per_pass rows, or one transaction if that is more."""

    holder: str
    keys: KeyFile
    rows_per_pass: int
    lease_seconds: float
    seen: Checkpoint | None = None
    """The newest checkpoint this process knows of; the log never falls back behind it."""
    _alarmed: bool = field(default=False, init=False)
    _key_fault: str = field(default="", init=False)

    async def seal(self, pool: Pool) -> int:
        """One pass; the rows sealed, 0 when there were none or this process may not seal."""
        with tracing.use_trace_id(None):
            key = self._load_key()
            epoch = await self._lease(pool) if key is not None else None
            if key is None or epoch is None:
                return 0
            try:
                async with self._keep_lease(pool):
                    return await self._seal(pool, epoch, key)
            except LogBroken as broken:
                await self._raise_alarm(pool, broken)
                raise

    async def release(self, pool: Pool) -> None:
        """Let another process seal at once; a database that is away costs only the wait."""
        with contextlib.suppress(*UNAVAILABLE, asyncpg.PostgresError):
            await pool.execute("select audit.release_seal($1)", self.holder, timeout=1.0)

    def _load_key(self) -> SignerKey | None:
        """The key as it is now; None, and said once, when there is none to use: the other timers go on."""
        try:
            key = self.keys.load()
        except KeyFault as fault:
            if str(fault) != self._key_fault:
                log.error("nothing is sealed: %s", fault)  # noqa: TRY400  # the message is all there is to know
            self._key_fault = str(fault)
            return None
        self._key_fault = ""
        return key

    async def _lease(self, pool: Pool) -> int | None:
        epoch: int | None = await pool.fetchval("select audit.lease_seal($1, $2)", self.holder, self.lease_seconds)
        return epoch

    @contextlib.asynccontextmanager
    async def _keep_lease(self, pool: Pool) -> AsyncIterator[None]:
        """Renew the lease as long as a pass takes."""

        async def renew() -> None:
            while True:
                await asyncio.sleep(self.lease_seconds / 3)
                with contextlib.suppress(*UNAVAILABLE, asyncpg.PostgresError):
                    await self._lease(pool)

        renewing = asyncio.create_task(renew(), name="seal-lease")
        try:
            yield
        finally:
            renewing.cancel()

    async def _seal(self, pool: Pool, epoch: int, key: SignerKey) -> int:
        async with (
            pool.acquire(timeout=ACQUIRE_SECONDS) as connection,
            connection.transaction(isolation="repeatable_read", readonly=True),
        ):
            head = await connection.fetchrow("select * from audit.read_head()")
            pieces = await connection.fetch(
                "select *, clock_timestamp() as sealed_at from audit.read_unsealed($1)",
                self.rows_per_pass,
                timeout=LONGEST_READ_SECONDS,
            )
        frontier = self.check_head(head)
        if not pieces:
            return 0
        blocks = await asyncio.to_thread(
            make_blocks, pieces, first=head["tree_size"], position=head["row_count"], epoch=epoch
        )
        nodes = [node for block in blocks for node in frontier.append(block.leaf())]
        rows = sum(block.row_count for block in blocks)
        checkpoint = Checkpoint(key.name, frontier.size, frontier.root(), head["row_count"] + rows, datetime.now(UTC))
        async with pool.acquire(timeout=ACQUIRE_SECONDS) as connection:
            if not await _append(connection, self.holder, epoch, blocks, nodes, checkpoint, key):
                log.info("another process sealed first")
                return 0
        self.seen = checkpoint
        self._alarmed = False
        return rows

    def check_head(self, head: Mapping[str, Any]) -> tree.Frontier:
        """The frontier to go on from, when it is the one that was signed. Raises LogBroken."""
        size = head["tree_size"]
        if self.seen is not None and size < self.seen.tree_size:
            raise LogBroken(
                f"the log had {self.seen.tree_size} blocks and has {size}: its end was cut off,"
                " or PULSE_AUDIT_ANCHOR_DIR holds the checkpoints of another database"
            )
        try:
            frontier = tree.Frontier(size, head["frontier"])
            if size == 0:
                return frontier
            checkpoint = open_checkpoint(head["note"] or "", self.keys.verifiers())
        except (ValueError, BadNote) as fault:
            raise LogBroken(f"the log of {size} blocks is damaged: {fault}") from None
        if (checkpoint.tree_size, checkpoint.root) != (size, frontier.root()) or checkpoint.row_count != head[
            "row_count"
        ]:
            raise LogBroken(f"the log of {size} blocks is not the one that was signed")
        if self.seen is not None and self.seen.tree_size == size and self.seen.root != checkpoint.root:
            raise LogBroken(f"the log of {size} blocks has two histories")
        return frontier

    async def _raise_alarm(self, pool: Pool, broken: LogBroken) -> None:
        if self._alarmed:
            return
        async with act_as_system(pool) as connection:
            await connection.execute("select audit.report_broken_log($1)", str(broken))
        self._alarmed = True


def make_blocks(pieces: Sequence[Mapping[str, Any]], *, first: int, position: int, epoch: int) -> list[Block]:
    """The blocks of one pass, from the rows of audit.read_unsealed."""
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
            # Every piece but the last is a complete subtree, so the root over their roots is the root over all leaves.
            rows_root=tree.root_of([tree.root_of(tree.split(piece["leaves"])) for piece in month]),
            sealed_at=month[0]["sealed_at"],
            epoch=epoch,
        )
        blocks.append(block)
        position += block.row_count
    return blocks


async def _append(
    connection: Connection,
    holder: str,
    epoch: int,
    blocks: Sequence[Block],
    nodes: Sequence[tree.Node],
    checkpoint: Checkpoint,
    key: SignerKey,
) -> bool:
    signed = {
        "tree_size": checkpoint.tree_size,
        "root": checkpoint.root.hex(),
        "row_count": checkpoint.row_count,
        "signed_at": checkpoint.signed_at,
        "key_id": key.verifier.key_id,
        "key_name": key.name,
        "public_key": key.verifier.public_key.hex(),
        "note": key.sign(checkpoint.text()),
    }
    appended: bool = await connection.fetchval(
        "select audit.append_blocks($1, $2, $3, $4, $5, $6, $7)",
        holder,
        epoch,
        [_as_json(block) for block in blocks],
        [node.level for node in nodes],
        [node.number for node in nodes],
        [node.hash for node in nodes],
        signed,
    )
    return appended


def _as_json(block: Block) -> dict[str, Any]:
    values = {name: getattr(block, name) for name in Block.__slots__}
    return {**values, "rows_root": block.rows_root.hex(), "leaf_hash": block.leaf().hex()}
