"""The Merkle tree compared with the recursive definition of RFC 6962."""

from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.shared.sealed_log import tree

LEAVES = st.lists(st.binary(max_size=8).map(tree.leaf_hash), max_size=70)


def plain_root(leaves: list[bytes]) -> bytes:
    """MTH of RFC 6962, section 2.1."""
    if not leaves:
        return sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    middle = 1
    while middle * 2 < len(leaves):
        middle *= 2
    return sha256(b"\x01" + plain_root(leaves[:middle]) + plain_root(leaves[middle:])).digest()


def test_the_hashes_are_those_of_certificate_transparency() -> None:
    """Roots that the public test data of RFC 6962 implementations list."""
    data = [b"", b"\x00", b"\x10", b"\x20\x21", b"\x30\x31", b"\x40\x41\x42\x43", bytes(range(0x50, 0x58))]
    data.append(bytes(range(0x60, 0x70)))
    leaves = [tree.leaf_hash(one) for one in data]
    roots = [tree.root_of(leaves[:size]).hex() for size in range(1, 9)]
    assert roots[0] == "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"
    assert roots[1] == "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"
    assert roots[2] == "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77"
    assert roots[7] == "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328"


@given(LEAVES)
def test_roots_agree_however_they_are_made(leaves: list[bytes]) -> None:
    """Level by level, by growing, and by the RFC's recursion; inner nodes equal the roots of their leaves."""
    frontier = tree.Frontier()
    nodes = [node for leaf in leaves for node in frontier.append(leaf)]
    assert tree.root_of(leaves) == frontier.root() == plain_root(leaves)
    for node in nodes:
        low = node.number << node.level
        assert node.hash == plain_root(leaves[low : low + (1 << node.level)])


@given(LEAVES.filter(len), st.data())
def test_every_proof_leads_to_the_root_and_no_other_leaf_does(leaves: list[bytes], data: st.DataObject) -> None:
    """An inclusion path fits its leaf, its place and its size only."""
    index = data.draw(st.integers(0, len(leaves) - 1))
    path = tree.inclusion_path(index, len(leaves), lambda low, high: plain_root(leaves[low:high]))
    root = plain_root(leaves)
    assert tree.root_from_path(leaves[index], index, len(leaves), path) == root
    assert tree.root_from_path(tree.leaf_hash(b"another leaf"), index, len(leaves), path) != root
    assert tree.root_from_path(leaves[index], index, len(leaves), [*path, root]) is None
    assert len(leaves) == 1 or tree.root_from_path(leaves[index], index, len(leaves), path[:-1]) != root
    assert tree.root_from_path(leaves[index], len(leaves), len(leaves), path) is None


@given(LEAVES.filter(len), st.data())
def test_a_proof_is_made_of_complete_subtrees(leaves: list[bytes], data: st.DataObject) -> None:
    """The ranges of a path come from stored nodes and at most one incomplete end."""
    index = data.draw(st.integers(0, len(leaves) - 1))
    for low, high in tree.ranges_of_path(index, len(leaves)):
        parts = tree.complete_subtrees(low, high)
        hashes = [plain_root(leaves[at << level : (at + 1) << level]) for level, at in parts]
        assert tree.join_subtrees(hashes) == plain_root(leaves[low:high])


def test_what_is_no_tree_is_refused() -> None:
    """A frontier that does not fit its size, truncated hashes, a missing leaf."""
    with pytest.raises(ValueError, match="3 leaves has 2 complete subtrees, not 1"):
        tree.Frontier(3, [bytes(32)])
    with pytest.raises(ValueError, match="33 bytes are no leaf hashes"):
        tree.split(bytes(33))
    with pytest.raises(ValueError, match="3 leaves has no leaf 3"):
        tree.inclusion_path(3, 3, lambda _low, _high: b"")
