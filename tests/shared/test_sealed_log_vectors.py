"""docs/verify_export.py and services.shared.sealed_log give the same results for the same bytes."""

from dataclasses import replace
from datetime import UTC, date, datetime
from typing import Any

import orjson
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from services.cli.audit.evidence import ProvenBlock
from services.cli.audit.lines import Lines
from services.cli.audit.paths import RowTree
from services.shared.sealed_log import tree
from services.shared.sealed_log.block import Block
from services.shared.sealed_log.entry import LOST, Entry, Extent, Site, open_entry, sign_handover
from services.shared.sealed_log.kept import find_notes
from services.shared.sealed_log.note import BadNote, Checkpoint, SignerKey, open_checkpoint
from tests.support.exported import VERIFIER

KEY = SignerKey("pulse.test/audit", Ed25519PrivateKey.from_private_bytes(bytes(range(32))))
NEXT_KEY = SignerKey("pulse.test/audit", Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33))))
KEYS = [KEY.verifier, NEXT_KEY.verifier]
THEIR_KEYS = VERIFIER.read_keys(map(str, KEYS))
LEAVES = [tree.leaf_hash(bytes([number])) for number in range(20)]
MADE_AT = datetime(2026, 1, 5, 12, 0, 0, 250, tzinfo=UTC)
CHECKPOINT = Checkpoint(KEY.name, 11, tree.root_of(LEAVES[:11]), 4711, MADE_AT)
SITE = Site(0, 7713863558101060239, 1, 16384)
MOVED = Site(1, 7713863561104510842, None, 16391)
BLOCK = Block(
    block_no=3,
    segment=date(2026, 1, 1),
    previous_snapshot="10:20:11,12",
    snapshot="20:31:",
    first_position=40,
    row_count=5,
    min_timestamp=datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC),
    max_timestamp=datetime(2026, 1, 31, 23, 59, 59, 999999, tzinfo=UTC),
    rows_root=tree.root_of(LEAVES[:5]),
    sealed_at=datetime(2026, 2, 1, tzinfo=UTC),
    epoch=2,
)
OTHER = {
    **dict.fromkeys(("block_no", "first_position", "row_count", "epoch"), 7),
    **dict.fromkeys(("previous_snapshot", "snapshot"), "30:32:31"),
    **dict.fromkeys(("min_timestamp", "max_timestamp", "sealed_at"), "2026-01-07T00:00:00Z"),
    "segment": "2026-02-01",
    "rows_root": "AAAA",
}
"""Other values for the members of a block's line."""
CONTINUED = Entry(
    origin=KEY.name,
    kind="continued",
    size=7,
    root=tree.root_of(LEAVES[:7]),
    row_count=70,
    before=SITE,
    after=MOVED,
    lost=Extent(11, CHECKPOINT.root),
    actor='cli:"ada"',
    reason="the disk of db-1 died\nat night",
    made_at=MADE_AT,
)
ENTRIES = [
    CONTINUED,
    replace(CONTINUED, lost=None),
    replace(CONTINUED, kind="loss"),
    replace(CONTINUED, kind="timeline", lost=None),
]


def rotation(handover: str) -> Entry:
    """Return the entry in which NEXT_KEY replaces KEY."""
    return replace(
        CONTINUED, kind="key", lost=None, old=str(KEY.verifier), new=str(NEXT_KEY.verifier), handover=handover
    )


@pytest.mark.parametrize("size", range(1, len(LEAVES) + 1))
def test_proofs_lead_to_the_same_root(size: int) -> None:
    """Each path fits its own leaf and place in both, and no other place in either."""
    leaves = LEAVES[:size]
    root = tree.root_of(leaves)
    for index, leaf in enumerate(leaves):
        path = tree.inclusion_path(index, size, lambda low, high: tree.root_of(leaves[low:high]))
        assert path == RowTree(leaves).path(index)
        assert VERIFIER.root_from_path(leaf, index, size, path) == root
        for place in range(-1, size + 2):
            found = tree.root_from_path(leaf, place, size, path)
            assert VERIFIER.root_from_path(leaf, place, size, path) == found
            assert (found == root) == (place == index)


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"block_no": 0, "first_position": 0, "previous_snapshot": "1:1:"},
        {"row_count": 2**40, "epoch": 2**31, "min_timestamp": datetime(1969, 12, 31, tzinfo=UTC)},
    ],
)
def test_blocks_have_the_same_leaf(changed: dict[str, Any]) -> None:
    """The line of an export holds every value of the header."""
    block = replace(BLOCK, **changed)
    rows = RowTree(LEAVES[:5])
    line = Lines().block(ProvenBlock(block, rows, [], {}))
    assert VERIFIER.block_hash(VERIFIER.parse(line.decode())) == block.leaf()
    members = orjson.loads(line)
    assert members.keys() - {"type", "path"} == OTHER.keys()
    for name, other in OTHER.items():
        assert VERIFIER.block_hash({**members, name: other}) != block.leaf(), name


def test_checkpoints_open_alike() -> None:
    """Size and root are those that were signed, and no changed note opens in either."""
    note = KEY.sign(CHECKPOINT.text())
    assert open_checkpoint(note, KEYS) == CHECKPOINT
    assert VERIFIER.open_checkpoint(note, THEIR_KEYS)[:2] == (CHECKPOINT.tree_size, CHECKPOINT.root)
    for at in range(len(note)):
        changed = f"{note[:at]}{'B' if note[at] == 'A' else 'A'}{note[at + 1 :]}"
        with pytest.raises(BadNote):
            open_checkpoint(changed, KEYS)
        with pytest.raises(VERIFIER.Fault):
            VERIFIER.open_checkpoint(changed, THEIR_KEYS)


def test_the_same_notes_are_found_in_a_file() -> None:
    """Both skip one that a crash cut off."""
    notes = [KEY.sign(replace(CHECKPOINT, tree_size=size).text()) for size in (9, 10, 11)]
    text = f"\n\n{notes[0]}\n\n{notes[1][:90]}\n\n{notes[2]}"
    assert find_notes(text, [KEY.name]) == VERIFIER.find_notes(text, KEY.name) == [notes[0], notes[2]]


@pytest.mark.parametrize(
    "entry", [*ENTRIES, rotation(LOST), rotation(sign_handover(KEY, NEXT_KEY.verifier))], ids=lambda entry: entry.kind
)
def test_entries_open_alike(entry: Entry) -> None:
    """Every member that the program reads is the one that was signed."""
    note = NEXT_KEY.sign(entry.text())
    assert open_entry(note, KEYS) == (entry, NEXT_KEY.verifier)
    theirs = VERIFIER.parse_entry(note, THEIR_KEYS)
    assert (theirs["kind"] or theirs["loss"], int(theirs["size"])) == (entry.kind, entry.size)
    assert (int(theirs["before"]), int(theirs["after"])) == (entry.before.epoch, entry.after.epoch)
    assert theirs["lost"] == (None if entry.lost is None else str(entry.lost.tree_size))
    assert (theirs["old"], theirs["new"], theirs["handover"]) == (entry.old, entry.new, entry.handover)
    assert [orjson.loads(theirs[name]) for name in ("actor", "reason")] == [entry.actor, entry.reason]
    assert datetime.fromisoformat(theirs["made"]) == entry.made_at


@pytest.mark.parametrize("size", [6, 7, 8, 11, 12])
@pytest.mark.parametrize("seconds", [-1, 0, 1])
@pytest.mark.parametrize("entry", ENTRIES)
def test_the_same_checkpoints_are_declared_lost(entry: Entry, size: int, seconds: int) -> None:
    """By their size and by the time at which they were signed."""
    signed = replace(CHECKPOINT, tree_size=size, signed_at=MADE_AT.replace(second=30 + seconds))
    entry = replace(entry, made_at=MADE_AT.replace(second=30))
    export = VERIFIER.Export(THEIR_KEYS, None)
    export.entries = [VERIFIER.parse_entry(KEY.sign(entry.text()), THEIR_KEYS)]
    assert export.is_lost(KEY.sign(signed.text())) == entry.leaves_out(size, signed.signed_at)
