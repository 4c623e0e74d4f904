"""Checkpoints that were kept outside the database: what the database is held against."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from services.local.audit.broken import Broken
from services.local.errors import LocalError
from services.ops_worker.sealing.note import BadNote, Checkpoint, VerifierKey, open_checkpoint, split_notes


class Kept(NamedTuple):
    """What a kept checkpoint says. Sorts by size."""

    tree_size: int
    root: bytes
    row_count: int
    signed_at: datetime
    file: str

    def __str__(self) -> str:
        return f"the checkpoint of {self.signed_at:%Y-%m-%d %H:%M:%S.%f}Z in {self.file}"


def read_kept(place: Path, keys: Sequence[VerifierKey]) -> list[Kept]:
    """Every checkpoint of a file, or of all files of a directory, by size; none when there is no such place.

    Raises Broken when one is not signed by one of the keys, LocalError when a file cannot be read.
    """
    return sorted({Kept(*_facts(checkpoint), path.name) for path, checkpoint in _read(place, keys)})


def _read(place: Path, keys: Sequence[VerifierKey]) -> Iterator[tuple[Path, Checkpoint]]:
    files = sorted(file for file in place.iterdir() if file.is_file()) if place.is_dir() else [place]
    for file in files:
        try:
            notes = split_notes(file.read_text(encoding="utf-8", errors="replace"))
        except FileNotFoundError:
            continue
        except OSError as error:
            raise LocalError(f"{file}: {error.strerror}") from None
        # A note that was handed out twice, as after a restart of the sealer, is checked once.
        for note in dict.fromkeys(notes):
            yield file, open_kept(note, keys, file)


def open_kept(note: str, keys: Sequence[VerifierKey], file: Path) -> Checkpoint:
    """The checkpoint of a note in a file; what was cut off while it was written may stand before it."""
    try:
        return open_checkpoint(note, keys)
    except BadNote as fault:
        for name in {key.name for key in keys}:
            before, found, rest = note.rpartition(f"{name}\n")
            if before and found:
                return open_kept(f"{name}\n{rest}", keys, file)
        first = " / ".join(note.splitlines()[:2])
        raise Broken(f"{file} holds a checkpoint ({first}) that none of the known keys signed: {fault}") from None


def _facts(checkpoint: Checkpoint) -> tuple[int, bytes, int, datetime]:
    return checkpoint.tree_size, checkpoint.root, checkpoint.row_count, checkpoint.signed_at
