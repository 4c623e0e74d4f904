"""Signed notes, checkpoints, the key file and the anchors."""

import stat
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from services.ops_worker.sealing.anchors import FileAnchor
from services.shared.sealed_log.key_file import KeyFault, KeyFile, read_verifiers
from services.shared.sealed_log.note import (
    BadNote,
    Checkpoint,
    SignerKey,
    VerifierKey,
    open_checkpoint,
    open_note,
    split_notes,
)

KEY = SignerKey("pulse.test/audit", Ed25519PrivateKey.from_private_bytes(bytes(range(32))))
CHECKPOINT = Checkpoint("pulse.test/audit", 7, bytes(32), 99, datetime(2026, 1, 5, 12, tzinfo=UTC))

# The example in the tests of Go's sumdb/note, which defines the format.
GO_KEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
GO_NOTE = (
    "If you think cryptography is the answer to your problem,\n"
    "then you don't know what your problem is.\n"
    "\n"
    "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
)


def test_a_note_of_another_implementation_opens() -> None:
    """The format is the public one."""
    text, key = open_note(GO_NOTE, [VerifierKey.parse(GO_KEY)])
    assert text.startswith("If you think")
    assert str(key) == GO_KEY


def test_a_checkpoint_survives_its_note() -> None:
    """Signed, split from a file, opened: the same."""
    note = KEY.sign(CHECKPOINT.text())
    assert note.splitlines()[:3] == ["pulse.test/audit", "7", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="]
    assert open_checkpoint(note, [KEY.verifier]) == CHECKPOINT
    other = KEY.sign(Checkpoint("pulse.test/audit", 8, bytes(32), 100, CHECKPOINT.signed_at).text())
    assert split_notes(f"{note}\n{other}\n") == [note, other]
    assert split_notes(f"{note}\n{other[: len(other) // 2]}") == [note]


@pytest.mark.parametrize("other", ["", "0", "A", "\n", " ", "\r", "\u2028"])
def test_no_changed_note_opens(other: str) -> None:
    """For any single character that is replaced or removed."""
    note = KEY.sign(CHECKPOINT.text())
    for at in range(len(note) - 1):
        changed = note[:at] + other + note[at + 1 :]
        if changed != note:
            with pytest.raises(BadNote):
                open_checkpoint(changed, [KEY.verifier])


@pytest.mark.parametrize(
    ("note", "keys", "words"),
    [
        ("no signature\n", [KEY.verifier], "has no signature"),
        (KEY.sign(CHECKPOINT.text()), [], "no known key"),
        (KEY.sign("anything\n"), [KEY.verifier], "no checkpoint"),
        (KEY.sign(CHECKPOINT.text().replace("pulse.test", "else.where")), [KEY.verifier], "is of else.where"),
        (KEY.sign(CHECKPOINT.text().replace("rows 99", "rows 099")), [KEY.verifier], "no checkpoint of this log"),
    ],
)
def test_what_is_no_checkpoint_of_ours_is_refused(note: str, keys: list[VerifierKey], words: str) -> None:
    """Each with its reason."""
    with pytest.raises(BadNote, match=words):
        open_checkpoint(note, keys)


def test_a_key_is_made_once_and_closed_to_others(tmp_path: Path) -> None:
    """Mode 0600; loading again gives the same key, and its public half is recorded."""
    file = KeyFile(tmp_path / "deep" / "signing.key", "pulse.test/audit")
    key = file.load()
    assert file.load().verifier == key.verifier
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600
    assert read_verifiers(file.public_path) == [key.verifier]
    assert VerifierKey.parse(str(key.verifier)) == key.verifier


def test_rotation_keeps_the_old_public_key(tmp_path: Path) -> None:
    """Notes of both keys open with the recorded public keys."""
    file = KeyFile(tmp_path / "signing.key", "pulse.test/audit")
    old = file.load().sign(CHECKPOINT.text())
    new = file.rotate().sign(CHECKPOINT.text())
    assert old != new
    assert len(file.verifiers()) == 2
    for note in (old, new):
        assert open_checkpoint(note, file.verifiers()) == CHECKPOINT


def test_a_key_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    """Open to other users, damaged, empty, or without a writable place."""
    file = KeyFile(tmp_path / "signing.key", "pulse.test/audit")
    file.load()
    file.path.chmod(0o640)
    with pytest.raises(KeyFault, match=r"open to others \(mode 0640\)"):
        file.load()
    file.path.chmod(0o600)
    text = file.path.read_text()
    file.path.write_text(text.replace("pulse.test", "pulse.best"))
    with pytest.raises(KeyFault, match="is damaged"):
        file.load()
    file.path.write_text("nothing\n")
    with pytest.raises(KeyFault, match="holds no Ed25519 key"):
        file.load()
    with pytest.raises(KeyFault, match="File exists"):
        KeyFile(file.path / "key", "pulse.test/audit").load()
    with pytest.raises(KeyFault, match="no name for a log"):
        KeyFile(tmp_path / "other.key", "two words").load()


@pytest.mark.parametrize("cut", [1, 40, 100, -2])
async def test_the_file_anchor_appends_and_finds_its_newest(tmp_path: Path, cut: int) -> None:
    """This includes a crash in the middle of a write."""
    anchor = FileAnchor(tmp_path / "checkpoints")
    assert list(anchor.newest_of_each_day()) == []
    notes = [KEY.sign(Checkpoint("pulse.test/audit", n, bytes(32), n, CHECKPOINT.signed_at).text()) for n in (1, 2)]
    for note in notes:
        await anchor.keep(note)
    assert [note for _, note in anchor.newest_of_each_day()] == [notes[1]]
    (file,) = (tmp_path / "checkpoints").iterdir()
    with file.open("a") as torn:
        torn.write(notes[0][:cut])
    assert [note for _, note in anchor.newest_of_each_day()] == [notes[1]]
    await anchor.keep(notes[0])
    assert split_notes(file.read_text()) == [*notes, notes[0]]
