"""The spool's file format: a magic, then one record a row, each marked, with its length and its CRC-32.

0xff begins a record. UTF-8 never holds that byte, so after damage the next record is found by looking for it.
"""

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from services.shared.audit_writer.line import Line

# A row is stored as record.COLUMNS says: whoever changes those counts this up, and reads both for a release.
MAGIC = b"PULSPOOL1\n"
LONGEST_RECORD = 1 << 20
_MARK = b"\xff"
_HEADER = struct.Struct("<cII")
_LENGTH = struct.Struct("<I")


@dataclass(frozen=True, slots=True)
class Damage:
    """Bytes of a segment that are no record, with records behind them."""

    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class Contents:
    """What a segment holds; what a crash left unfinished at its end is in neither."""

    lines: Sequence[Line]
    damages: Sequence[Damage]


def encode(lines: Sequence[Line]) -> bytes:
    """Rows as records."""
    parts: list[bytes] = []
    for line in lines:
        payload = line.encode()
        parts += (_HEADER.pack(_MARK, len(payload), _checksum(payload)), payload)
    return b"".join(parts)


def read(file: Path) -> Contents:
    """The rows of a segment in their order, and where it is damaged. The file's end may be torn: that is no damage."""
    content = file.read_bytes()
    lines: list[Line] = []
    damages: list[Damage] = []
    at = len(MAGIC) if content.startswith(MAGIC) else 0
    bad_from: int | None = None
    while 0 <= at < len(content):
        payload = _payload_at(content, at)
        if payload is None:
            bad_from = at if bad_from is None else bad_from
            at = content.find(_MARK, at + 1)
            continue
        if bad_from is not None:
            damages.append(Damage(bad_from, at - bad_from))
            bad_from = None
        lines.append(Line(payload.decode()))
        at += _HEADER.size + len(payload)
    return Contents(lines, damages)


def _payload_at(content: bytes, at: int) -> bytes | None:
    if at + _HEADER.size > len(content):
        return None
    mark, length, checksum = _HEADER.unpack_from(content, at)
    start = at + _HEADER.size
    if mark != _MARK or not 0 < length <= LONGEST_RECORD or start + length > len(content):
        return None
    payload = content[start : start + length]
    return payload if _checksum(payload) == checksum else None


def _checksum(payload: bytes) -> int:
    # The length is covered too: a shorter record must not pass for a whole one.
    return zlib.crc32(payload, zlib.crc32(_LENGTH.pack(len(payload))))
