"""Proof paths: from a row to its block, from a block to a signed root."""

from collections.abc import Mapping, Sequence

from services.shared.sealed_log.tree import (
    complete_subtrees,
    inclusion_path,
    join_subtrees,
    node_hash,
    ranges_of_path,
)

Place = tuple[int, int]
"""Level and number of a complete subtree."""


class RowTree:
    """Tree over the rows of a block, with all levels."""

    def __init__(self, leaves: Sequence[bytes]) -> None:
        self._levels = [list(leaves)]
        while len(self._levels[-1]) > 1:
            row = self._levels[-1]
            above = [node_hash(left, right) for left, right in zip(row[::2], row[1::2], strict=False)]
            if len(row) % 2:
                above.append(row[-1])
            self._levels.append(above)

    @property
    def root(self) -> bytes:
        """Root over the rows, the block's rows_root."""
        return self._levels[-1][0]

    def path(self, index: int) -> list[bytes]:
        """Return the path from a row to the root, the nearest first. An odd last hash moves up without a sibling."""
        path = []
        for row in self._levels[:-1]:
            if index ^ 1 < len(row):
                path.append(row[index ^ 1])
            index >>= 1
        return path


def subtrees_of_path(index: int, size: int) -> list[Place]:
    """Return the complete subtrees of a block's path."""
    return [place for low, high in ranges_of_path(index, size) for place in complete_subtrees(low, high)]


def tree_path(index: int, size: int, hashes: Mapping[Place, bytes]) -> list[bytes]:
    """Return a block's path to the root over `size` blocks."""
    return inclusion_path(
        index, size, lambda low, high: join_subtrees([hashes[place] for place in complete_subtrees(low, high)])
    )
