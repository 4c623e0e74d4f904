"""Checkpoints kept outside the database, against which the database is checked."""

import re
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from services.shared.sealed_log.block import Broken
from services.shared.sealed_log.note import (
    BadNote,
    Checkpoint,
    VerifierKey,
    open_checkpoint,
    open_note,
    parse_checkpoint,
)

TOMBSTONES = "tombstones.log"
"""Name of the file in an anchor's directory that holds no checkpoints."""
_SIGNATURES = r"(?:\N{EM DASH} \S+ [A-Za-z0-9+/]{80,}=*\n)+"
_ANY_NOTE = r"^\S+\n\d+\n[A-Za-z0-9+/=]{44}\n(?:[^\n]+\n)*\n" + _SIGNATURES


class Kept(NamedTuple):
    """A kept checkpoint and the key that signed it. Sorts by size. note_hash: Python's hash of the whole note."""

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
    """Return the checkpoints of a file, or of a directory's files, by size; none if the place does not exist.

    Raises Broken unless one of the keys signed each checkpoint, and OSError if a file cannot be read.
    """
    return sorted(set(_read(place, keys)))


def _read(place: Path, keys: Sequence[VerifierKey]) -> Iterator[Kept]:
    for file in _files(place):
        try:
            text = file.read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            continue
        origins = {key.name for key in keys}
        notes = find_notes(text, origins)
        if text.strip() and not notes:
            raise Broken(f"{file} holds no checkpoint of {keys[0].name}")
        for piece in find_garbage(text, origins):
            raise Broken(f"{file} holds something that is no checkpoint: {piece[:60]!r}")
        for note in notes:
            try:
                yield open_kept(note, file.name, keys)
            except BadNote as fault:
                first = " / ".join(note.splitlines()[:2])
                raise Broken(f"{file} holds a checkpoint ({first}) that no known key signed: {fault}") from None


def open_kept(note: str, file: str, keys: Sequence[VerifierKey]) -> Kept:
    """Return the checkpoint in a note from a file. Raises BadNote unless one of the keys signed it."""
    statement, key = open_note(note, keys)
    signed = parse_checkpoint(statement, key)
    return Kept(signed.tree_size, signed.root, signed.row_count, signed.signed_at, file, key.key_id, hash(note))


def empty_files(place: Path) -> list[Path]:
    """Return the empty files of checkpoints, left by a crash or by tampering."""
    return [file for file in _files(place) if file.is_file() and not file.stat().st_size]


class Survey(NamedTuple):
    """The state of an anchor's directory. largest: the checkpoint of the largest tree. faults: sentences."""

    largest: Checkpoint | None
    faults: list[str]


def survey(place: Path, keys: Sequence[VerifierKey]) -> Survey:
    """Find the largest tree in the files of a directory. Never raises Broken."""
    largest: Checkpoint | None = None
    faults = [f"{file} is empty" for file in empty_files(place)]
    origins = {key.name for key in keys}
    for file in _files(place):
        try:
            text = file.read_text(encoding="utf-8", errors="replace")
        except OSError as error:
            faults.append(f"{file}: {error.strerror}")
            continue
        faults += [f"{file} holds something that is no checkpoint: {one[:60]!r}" for one in find_garbage(text, origins)]
        for note in sorted(find_notes(text, origins), key=_size_of, reverse=True):
            if largest is not None and _size_of(note) <= largest.tree_size:
                break
            try:
                largest = open_checkpoint(note, keys)
                break
            except BadNote as fault:
                faults.append(f"{file} holds a checkpoint over {_size_of(note)} blocks that is not valid: {fault}")
    return Survey(largest, faults)


def _size_of(note: str) -> int:
    return int(note.split("\n", 2)[1])


def find_garbage(text: str, origins: Iterable[str]) -> Iterator[str]:
    """Yield the parts of a file that are neither a note nor the beginning of one that a crash cut off."""
    names = sorted(origins)
    # A file may hold the checkpoints of several logs.
    others = re.compile(rf"(?!(?:{'|'.join(map(re.escape, names))})\n){_ANY_NOTE}", re.MULTILINE)
    for between in _own_notes(names).split(text):
        for piece in map(str.strip, others.split(between)):
            lines = piece.rstrip("\N{REPLACEMENT CHARACTER}").split("\n")
            if piece and not any(_is_beginning(lines, name) for name in names):
                yield piece


def _is_beginning(lines: Sequence[str], origin: str) -> bool:
    """Return whether lines begin a checkpoint; the last line may be incomplete."""
    starts = (origin, "", "", "rows ", "signed ", "", f"\N{EM DASH} {origin} ")
    rests = ("", r"\d*", r"[A-Za-z0-9+/=]*", r"\d*", r"\S*", "", r"[A-Za-z0-9+/=]*")
    if len(lines) > len(starts):
        return False
    wholes = [re.escape(start) + rest for start, rest in zip(starts, rests, strict=True)]
    last, start, rest = lines[-1], starts[len(lines) - 1], rests[len(lines) - 1]
    begun = start.startswith(last) or re.fullmatch(re.escape(start) + rest, last)
    return bool(begun) and all(map(re.fullmatch, wholes, lines[:-1]))


def _files(place: Path) -> list[Path]:
    """Return the files of a place, without that of the tombstones."""
    if not place.is_dir():
        return [place]
    return sorted(file for file in place.iterdir() if file.is_file() and file.name != TOMBSTONES)


def find_notes(text: str, origins: Iterable[str]) -> list[str]:
    """Return the checkpoints of these logs in a text, each once: a restarted sealer hands out its newest again.

    A note that was cut off while it was written is skipped; the next one may begin in its last line.
    """
    return list(dict.fromkeys(_own_notes(sorted(origins)).findall(text)))


def _own_notes(origins: Sequence[str]) -> re.Pattern[str]:
    origin = "|".join(map(re.escape, origins))
    text_part = rf"(?:{origin})\n\d{{1,19}}\n[A-Za-z0-9+/=]{{44}}\nrows \d+\nsigned \S+\n"
    return re.compile(text_part + r"\n" + _SIGNATURES)
