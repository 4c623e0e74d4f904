"""Signed notes and checkpoints by C2SP's signed-note and tlog-checkpoint, with Ed25519.

pulse.example/audit
4711
UmZjIDY5NjIgcm9vdCBvdmVyIDQ3MTEgYmxvY2tzISE=
rows 1234567
signed 2026-01-05T12:00:00.000000Z

— pulse.example/audit Az3grj…
"""

import base64
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from typing import Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

_ED25519 = b"\x01"
_DASH = "\N{EM DASH} "
# Text, a blank line, signatures of 68 bytes each, so that a truncated signature is not taken for a false one.
_WHOLE_NOTE = re.compile(rf"^(?:[^\n]+\n)+\n(?:{_DASH}\S+ [A-Za-z0-9+/=]{{92}}\n)+", re.MULTILINE)
NAME = re.compile(r"[^\s+\x00-\x1f\x7f]{1,200}")


class BadNote(ValueError):
    """Raised if a text is not a note signed by a known key."""


@dataclass(frozen=True, slots=True)
class VerifierKey:
    """A public key with the name it signs under."""

    name: str
    public_key: bytes

    @property
    def key_hash(self) -> bytes:
        """The four bytes that identify the key in a signature."""
        return sha256(self.name.encode() + b"\n" + _ED25519 + self.public_key).digest()[:4]

    @property
    def key_id(self) -> str:
        """The key hash in hex."""
        return self.key_hash.hex()

    def __str__(self) -> str:
        return f"{self.name}+{self.key_id}+{base64.b64encode(_ED25519 + self.public_key).decode()}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the key in `name+hash+key`. Raises BadNote."""
        name, _, rest = text.strip().partition("+")
        key_id, _, encoded = rest.partition("+")
        try:
            key = base64.b64decode(encoded, validate=True)
        except ValueError:  # binascii.Error, or a character that is no ASCII
            raise BadNote("the public key is not base64") from None
        if len(key) != 33 or key[:1] != _ED25519 or not NAME.fullmatch(name):
            raise BadNote("the text is no Ed25519 public key of a note (name+hash+key)")
        found = cls(name, key[1:])
        if found.key_id != key_id:
            raise BadNote(f"the public key of {name} is damaged: its hash is {found.key_id}, not {key_id}")
        return found


@dataclass(frozen=True, slots=True)
class SignerKey:
    """A private key with the name it signs under."""

    name: str
    private_key: Ed25519PrivateKey

    @property
    def verifier(self) -> VerifierKey:
        """The public key."""
        return VerifierKey(self.name, self.private_key.public_key().public_bytes_raw())

    def sign(self, text: str) -> str:
        """Return the text, which ends with a line feed, as a note signed by this key."""
        signature = self.verifier.key_hash + self.private_key.sign(text.encode())
        return f"{text}\n{_DASH}{self.name} {base64.b64encode(signature).decode()}\n"


def open_note(note: str, keys: Iterable[VerifierKey]) -> tuple[str, VerifierKey]:
    """Return the text of a note and the first of the keys that signed it. Raises BadNote."""
    text, separator, signatures = note.rpartition("\n\n")
    if not separator:
        raise BadNote("the note has no signature")
    known = {(key.name, key.key_hash): key for key in keys}
    text += "\n"
    for line in signatures.removesuffix("\n").split("\n"):
        if not line.startswith(_DASH):
            raise BadNote("a line among the note's signatures is none")
        name, _, encoded = line.removeprefix(_DASH).partition(" ")
        try:
            signature = base64.b64decode(encoded, validate=True)
        except ValueError:  # binascii.Error, or a character that is no ASCII
            raise BadNote("a signature of the note is not base64") from None
        key = known.get((name, signature[:4]))
        if key is None:
            continue
        _verify(key, signature[4:], text)
        return text, key
    raise BadNote("no known key signed the note")


def verify_signature(key: VerifierKey, text: str, signature: str) -> None:
    """Check a bare signature in base64. Raises BadNote."""
    try:
        raw = base64.b64decode(signature, validate=True)
    except ValueError:
        raise BadNote("a signature is not base64") from None
    _verify(key, raw, text)


def _verify(key: VerifierKey, signature: bytes, text: str) -> None:
    try:
        Ed25519PublicKey.from_public_bytes(key.public_key).verify(signature, text.encode())
    except InvalidSignature:
        raise BadNote(f"the signature of {key.name} is false") from None


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The number of blocks and rows of a log, and the root over its blocks."""

    origin: str
    tree_size: int
    root: bytes
    row_count: int
    signed_at: datetime

    def text(self) -> str:
        """Return the signed text."""
        signed_at = self.signed_at.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        root = base64.b64encode(self.root).decode()
        return f"{self.origin}\n{self.tree_size}\n{root}\nrows {self.row_count}\nsigned {signed_at}\n"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the checkpoint in a signed text. Raises BadNote."""
        lines = text.removesuffix("\n").split("\n")
        extensions: Mapping[str, str] = dict(line.split(" ", 1) for line in lines[3:] if " " in line)
        try:
            origin, size, root = lines[:3]
            checkpoint = cls(
                origin,
                int(size),
                base64.b64decode(root, validate=True),
                int(extensions["rows"]),
                datetime.fromisoformat(extensions["signed"]),
            )
        except (ValueError, KeyError):
            raise BadNote("the note is no checkpoint") from None
        if len(checkpoint.root) != 32 or checkpoint.text() != text:
            raise BadNote("the note is no checkpoint of this log")
        return checkpoint


def open_checkpoint(note: str, keys: Iterable[VerifierKey]) -> Checkpoint:
    """Return the checkpoint in a note that one of the keys signed under its own name. Raises BadNote."""
    return parse_checkpoint(*open_note(note, keys))


def parse_checkpoint(text: str, key: VerifierKey) -> Checkpoint:
    """Return the checkpoint in a text that the key signed. Raises BadNote."""
    checkpoint = Checkpoint.parse(text)
    if checkpoint.origin != key.name:
        raise BadNote(f"the checkpoint is of {checkpoint.origin}, its signature of {key.name}")
    return checkpoint


def parse_unchecked(note: str) -> Checkpoint:
    """Return the checkpoint in a note, with its signature unchecked. Raises BadNote."""
    return Checkpoint.parse(note.rpartition("\n\n")[0] + "\n")


def split_notes(text: str) -> list[str]:
    """Return the complete notes of a file, without one that a crash left unfinished."""
    return _WHOLE_NOTE.findall(text)
