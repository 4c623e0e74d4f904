"""The Merkle tree of RFC 6962: roots, growing frontiers, proofs. Hashes are SHA-256, 32 bytes."""

from collections.abc import Callable, Iterator, Sequence
from hashlib import sha256
from typing import NamedTuple

HASH_BYTES = 32
EMPTY_ROOT = sha256(b"").digest()


class Node(NamedTuple):
    """The hash of a complete subtree over 2^level leaves. number: its place within the level, from 0."""

    level: int
    number: int
    hash: bytes


def leaf_hash(data: bytes) -> bytes:
    """Return the hash of a leaf's content."""
    return sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return the hash of an inner node."""
    return sha256(b"\x01" + left + right).digest()


def split(leaves: bytes) -> list[bytes]:
    """Split concatenated leaf hashes."""
    if len(leaves) % HASH_BYTES:
        raise ValueError(f"{len(leaves)} bytes are no leaf hashes")
    return [leaves[at : at + HASH_BYTES] for at in range(0, len(leaves), HASH_BYTES)]


def root_of(leaves: Sequence[bytes]) -> bytes:
    """Return the root over leaf hashes. An odd last hash of a level moves up unchanged, as RFC 6962's split implies."""
    if not leaves:
        return EMPTY_ROOT
    row = leaves
    while len(row) > 1:
        row = _fold(row)
    return row[0]


def _fold(row: Sequence[bytes]) -> list[bytes]:
    folded = [sha256(b"\x01" + left + right).digest() for left, right in zip(row[::2], row[1::2], strict=False)]
    if len(row) % 2:
        folded.append(row[-1])
    return folded


class Frontier:
    """The minimal state of a growing tree: the roots of its complete subtrees, the widest first."""

    def __init__(self, size: int = 0, subtrees: Sequence[bytes] = ()) -> None:
        if len(subtrees) != size.bit_count() or any(len(one) != HASH_BYTES for one in subtrees):
            raise ValueError(f"a tree of {size} leaves has {size.bit_count()} complete subtrees, not {len(subtrees)}")
        self.size = size
        self._subtrees = list(subtrees)

    def append(self, leaf: bytes) -> Iterator[Node]:
        """Add a leaf hash; yield the inner nodes that it completes."""
        self._subtrees.append(leaf)
        index, level = self.size, 0
        self.size += 1
        while index & 1:
            right, left = self._subtrees.pop(), self._subtrees.pop()
            index, level = index >> 1, level + 1
            self._subtrees.append(node_hash(left, right))
            yield Node(level, index, self._subtrees[-1])

    def root(self) -> bytes:
        """Return the root of the present tree."""
        if not self._subtrees:
            return EMPTY_ROOT
        root = self._subtrees[-1]
        for left in reversed(self._subtrees[:-1]):
            root = node_hash(left, root)
        return root


Range = Callable[[int, int], bytes]
"""Returns the root over the leaves from the first number up to, not including, the second."""


def inclusion_path(index: int, size: int, range_root: Range) -> list[bytes]:
    """Return the hashes from a leaf to the root of a tree of this size, the nearest first (RFC 6962, 2.1.1)."""
    if not 0 <= index < size:
        raise ValueError(f"a tree of {size} leaves has no leaf {index}")
    path, low, high = [], 0, size
    while high - low > 1:
        middle = low + _largest_power_below(high - low)
        if index < middle:
            path.append(range_root(middle, high))
            high = middle
        else:
            path.append(range_root(low, middle))
            low = middle
    return path[::-1]


def ranges_of_path(index: int, size: int) -> list[tuple[int, int]]:
    """Return the ranges that inclusion_path needs, so that they can be fetched at once."""
    asked: list[tuple[int, int]] = []

    def note(low: int, high: int) -> bytes:
        asked.append((low, high))
        return b""

    inclusion_path(index, size, note)
    return asked


def complete_subtrees(low: int, high: int) -> list[tuple[int, int]]:
    """Return (level, index) of the complete subtrees over the leaves from low up to, not including, high, in order.

    The range must be one of a proof: low is a multiple of the largest power of two that fits.
    """
    parts = []
    while low < high:
        level = (high - low).bit_length() - 1
        parts.append((level, low >> level))
        low += 1 << level
    return parts


def join_subtrees(hashes: Sequence[bytes]) -> bytes:
    """Return the root over the parts that complete_subtrees names."""
    root = hashes[-1]
    for left in reversed(hashes[:-1]):
        root = node_hash(left, root)
    return root


def root_from_path(leaf: bytes, index: int, size: int, path: Sequence[bytes]) -> bytes | None:
    """Return the root that a proof leads to, None if the proof does not fit the place."""
    if not 0 <= index < size:
        return None
    root, last = leaf, size - 1
    for sibling in path:
        if last == 0:
            return None
        if index & 1 or index == last:
            root = node_hash(sibling, root)
            while not index & 1 and index:
                index, last = index >> 1, last >> 1
        else:
            root = node_hash(root, sibling)
        index, last = index >> 1, last >> 1
    return root if last == 0 else None


def _largest_power_below(number: int) -> int:
    return 1 << (number - 1).bit_length() - 1
