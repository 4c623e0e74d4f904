"""RFC 6962's consistency proof that a tree grew out of a smaller one, from the nodes in the database."""

from collections.abc import Iterator, Mapping

from services.shared import db
from services.shared.sealed_log.entry import Extent
from services.shared.sealed_log.tree import complete_subtrees, join_subtrees, node_hash

Nodes = Mapping[tuple[int, int], bytes]
"""Hashes of complete subtrees by level and index."""


async def grew_from(connection: "db.Connection | db.Pool", tree: Extent, earlier: Extent) -> bool:
    """Return whether a tree begins with the leaves of an earlier one. The roots prove the nodes."""
    if earlier.tree_size == 0:
        return True
    if earlier.tree_size >= tree.tree_size:
        return earlier == tree
    places = list(needed_nodes(tree.tree_size, earlier.tree_size))
    rows = await connection.fetch(
        "select level, node_index, hash from audit.read_nodes($1, $2)",
        [level for level, _ in places],
        [index for _, index in places],
    )
    nodes = {(row["level"], row["node_index"]): row["hash"] for row in rows if row["hash"] is not None}
    return is_consistent(tree, earlier, nodes)


def needed_nodes(size: int, earlier: int) -> Iterator[tuple[int, int]]:
    """Yield the level and index of each subtree that is_consistent() needs."""
    for low, high in _ranges(0, size, earlier):
        yield from complete_subtrees(low, high)


def is_consistent(tree: Extent, earlier: Extent, nodes: Nodes) -> bool:
    """Return whether nodes prove that a tree grew out of an earlier, smaller one."""
    size = earlier.tree_size

    def root(low: int, high: int) -> bytes:
        if high <= size or low >= size:
            return join_subtrees([nodes[place] for place in complete_subtrees(low, high)])
        middle = low + (1 << (high - low - 1).bit_length() - 1)
        return node_hash(root(low, middle), root(middle, high))

    try:
        # Both trees contain the subtrees of the earlier one, so the larger root proves them.
        was = join_subtrees([nodes[place] for place in complete_subtrees(0, size)])
        return (was, root(0, tree.tree_size)) == (earlier.root, tree.root)
    except KeyError:
        return False


def _ranges(low: int, high: int, border: int) -> Iterator[tuple[int, int]]:
    if high <= border or low >= border:
        yield low, high
    else:
        middle = low + (1 << (high - low - 1).bit_length() - 1)
        yield from _ranges(low, middle, border)
        yield from _ranges(middle, high, border)
