"""Checkpoints that were kept outside the database: what the database is held against."""

import re
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from services.shared.sealed_log.broken import Broken
from services.shared.sealed_log.note import BadNote, VerifierKey, open_note, parse_checkpoint

TOMBSTONES = "tombstones.log"
"""Name of the file in an anchor's directory that holds no checkpoints."""


class Kept(NamedTuple):
    """What a kept checkpoint says, and who signed it. Sorts by size. note_hash: Python's, of the whole note."""

    tree_size: int
    root: bytes
    row_count: int
    signed_at: datetime
    file: str
    key_id: str
    note_hash: int

    def __str__(self) -> str:
        return f"the checkpoint of {self.signed_at:%Y-%m-%d %H:%M:%S.%f}Z in {self.file}"


def read_kept(place: Path, keys: Sequence[VerifierKey]) -> list[Kept]:
    """Every checkpoint of a file, or of all files of a directory, by size; none when there is no such place.

    Raises Broken when one is not signed by one of the keys, OSError when a file cannot be read.
    """
    return sorted(set(_read(place, keys)))


def _read(place: Path, keys: Sequence[VerifierKey]) -> Iterator[Kept]:
    files = sorted(_checkpoint_files(place)) if place.is_dir() else [place]
    for file in files:
        try:
            text = file.read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            continue
        notes = find_notes(text, {key.name for key in keys})
        if text.strip() and not notes:
            raise Broken(f"{file} holds no checkpoint of {keys[0].name}")
        for note in notes:
            try:
                yield open_kept(note, file.name, keys)
            except BadNote as fault:
                first = " / ".join(note.splitlines()[:2])
                raise Broken(f"{file} holds a checkpoint ({first}) that no known key signed: {fault}") from None


def open_kept(note: str, file: str, keys: Sequence[VerifierKey]) -> Kept:
    """Return the checkpoint in a note from a file; raises BadNote unless one of the keys signed it."""
    statement, key = open_note(note, keys)
    signed = parse_checkpoint(statement, key)
    return Kept(signed.tree_size, signed.root, signed.row_count, signed.signed_at, file, key.key_id, hash(note))


def _checkpoint_files(directory: Path) -> Iterator[Path]:
    """Yield the files of an anchor's directory, without the one in which it keeps tombstones."""
    for file in directory.iterdir():
        if file.is_file() and file.name != TOMBSTONES:
            yield file


def find_notes(text: str, origins: Iterable[str]) -> list[str]:
    """The checkpoints of these logs in a text, each once: a restarted sealer hands its newest out again.

    One that was cut off while it was written is passed over; the next one may begin in the midst of its last line.
    """
    origin = "|".join(map(re.escape, sorted(origins)))
    text_part = rf"(?:{origin})\n\d+\n[A-Za-z0-9+/=]{{44}}\nrows \d+\nsigned \S+\n"
    signatures = r"(?:\N{EM DASH} \S+ [A-Za-z0-9+/]{80,}=*\n)+"
    return list(dict.fromkeys(re.findall(text_part + r"\n" + signatures, text)))
