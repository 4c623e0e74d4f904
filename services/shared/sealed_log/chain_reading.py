"""The reading of blocks, tree and checkpoints in one snapshot, to check them as a chain."""

from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from typing import Any

from services.shared import db
from services.shared.sealed_log.block import Block, Broken
from services.shared.sealed_log.chain import Chain
from services.shared.sealed_log.kept import Kept
from services.shared.sealed_log.note import VerifierKey
from services.shared.sealed_log.tree import Frontier, Node


async def read_chain(pool: db.Pool, chain: Chain) -> Chain:
    """Read the whole log into the chain, check it and return it. Raises Broken."""
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
        async for completed in _take(chain, blocks, checkpoints):
            for node in completed:
                _check_node(node, await anext(nodes, None))
        chain.close()
        if await anext(nodes, None) is not None:
            raise Broken("the tree in the database has nodes over blocks that are not there")
    return chain


async def read_recent_chain(pool: db.Pool, keys: Sequence[VerifierKey], kept: Sequence[Kept], since: datetime) -> Chain:
    """Return the checked chain from the first pass that sealed rows since then. Raises Broken."""
    chain = Chain(keys, kept, since, only_newest_signature=True)
    async with (
        pool.acquire(timeout=db.ACQUIRE_SECONDS) as connection,
        connection.transaction(isolation="repeatable_read", readonly=True),
    ):
        first = await _first_since(connection, since)
        if first is None:
            return chain
        levels = [level for level in range(62, -1, -1) if first.block_no >> level & 1]
        hashes = await connection.fetch(
            "select hash from audit.read_nodes($1, $2) order by level desc",
            levels,
            [(first.block_no >> level) - 1 for level in levels],
        )
        chain.begin_at(first, Frontier(first.block_no, [row["hash"] or b"" for row in hashes]))
        blocks = _rows(
            connection, "select * from audit.block_headers where block_no >= $1 order by block_no", first.block_no
        )
        checkpoints = _rows(
            connection,
            "select tree_size, root, row_count, signed_at, key_id, note from audit.log_checkpoints where tree_size > $1"
            " order by tree_size",
            first.block_no,
        )
        async for _ in _take(chain, blocks, checkpoints):
            pass
        chain.close()
    return chain


async def _take(
    chain: Chain, blocks: AsyncIterator[Any], checkpoints: AsyncIterator[Any]
) -> AsyncIterator[Sequence[Node]]:
    """Add blocks and checkpoints to a chain; yield the nodes that each block completes. Raises Broken."""
    signed = await anext(checkpoints, None)
    async for block in _readable(blocks):
        yield chain.add(block)
        while signed is not None and signed["tree_size"] <= chain.size:
            chain.checkpoint(signed)
            signed = await anext(checkpoints, None)
    if signed is not None:
        raise Broken(
            f"the log ends after {chain.size} blocks, and a checkpoint in the database covers "
            f"{signed['tree_size']}: its end was cut off",
            block_no=chain.size,
        )


async def _first_since(connection: db.Connection, since: datetime) -> Block | None:
    """Return the first block of the first pass since then, by bisection over blocks in sealed order."""
    query = "select * from audit.block_headers where block_no = $1"
    head = await connection.fetchrow("select * from audit.block_headers order by block_no desc limit 1")
    if head is None or head["sealed_at"] < since:
        return None
    low, high = 0, head["block_no"]
    while low < high:
        middle = (low + high) // 2
        row = await connection.fetchrow(query, middle)
        if row is None:
            raise Broken(f"block {middle} is missing", block_no=middle)
        low, high = (middle + 1, high) if row["sealed_at"] < since else (low, middle)
    row = await connection.fetchrow(query, low)
    while low > 0:
        before = await connection.fetchrow(query, low - 1)
        if before is None or row is None or before["snapshot"] != row["snapshot"]:
            break
        low, row = low - 1, before
    if row is None:
        raise Broken(f"block {low} is missing", block_no=low)
    return Block.read(row)


async def _rows(connection: db.Connection, query: str, *arguments: object) -> AsyncIterator[Any]:
    async for row in connection.cursor(query, *arguments, prefetch=1000):
        yield row


async def _readable(blocks: AsyncIterator[Any]) -> AsyncIterator[Any]:
    """Yield the blocks; the driver fails for times that Python lacks, which no sealed block has."""
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
