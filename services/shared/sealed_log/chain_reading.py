"""Reads blocks, tree and checkpoints in one snapshot and checks them as a chain, without a row of audit_log."""

from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from typing import Any

from services.shared import db
from services.shared.sealed_log.broken import Broken
from services.shared.sealed_log.chain import Chain
from services.shared.sealed_log.kept import Kept
from services.shared.sealed_log.note import VerifierKey
from services.shared.sealed_log.tree import Node


async def read_chain(
    pool: db.Pool, keys: Sequence[VerifierKey], kept: Sequence[Kept], since: datetime | None = None
) -> Chain:
    """Return the whole chain, held against every kept checkpoint. Raises Broken."""
    chain = Chain(keys, kept, since)
    async with (
        pool.acquire(timeout=db.ACQUIRE_SECONDS) as connection,
        connection.transaction(isolation="repeatable_read", readonly=True),
    ):
        blocks = _rows(connection, "select * from audit.block_headers order by block_no")
        nodes = _rows(
            connection,
            "select level, node_index, hash from audit.log_nodes order by (node_index + 1) << level, level",
        )
        checkpoints = _rows(
            connection,
            "select tree_size, root, row_count, signed_at, key_id, note from audit.log_checkpoints order by tree_size",
        )
        signed = await anext(checkpoints, None)
        async for block in _readable(blocks):
            for node in chain.add(block):
                _check_node(node, await anext(nodes, None))
            while signed is not None and signed["tree_size"] <= chain.size:
                chain.checkpoint(signed)
                signed = await anext(checkpoints, None)
        if signed is not None:
            raise Broken(
                f"the log ends after {chain.size} blocks, and a checkpoint in the database covers "
                f"{signed['tree_size']}: its end was cut off",
                block_no=chain.size,
            )
        chain.close()
        if await anext(nodes, None) is not None:
            raise Broken("the tree in the database has nodes over blocks that are not there")
    return chain


async def _rows(connection: db.Connection, query: str) -> AsyncIterator[Any]:
    async for row in connection.cursor(query, prefetch=1000):
        yield row


async def _readable(blocks: AsyncIterator[Any]) -> AsyncIterator[Any]:
    """The driver refuses a time that Python does not have; no sealed block has one."""
    try:
        async for block in blocks:
            yield block
    except (OverflowError, ValueError):
        raise Broken("a block carries a time that no sealed block has: it was altered") from None


def _check_node(node: Node, row: Any) -> None:
    if row is None or (row["level"], row["node_index"], row["hash"]) != node:
        first = node.number << node.level
        raise Broken(
            f"the tree in the database was altered: its node over blocks {first} to {first + (1 << node.level) - 1} is "
            "not what they hash to",
            block_no=first,
        )
