"""The sealer's private key in a file that only its owner may read, and beside it every public key it ever had.

signing.key        PRIVATE+KEY+<name>+<hash>+<base64>, one line, mode 0600; made when it is missing
signing.key.pub    <name>+<hash>+<base64>, one line a key, the newest last: what auditors take away
"""

import base64
import binascii
import contextlib
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from services.ops_worker.sealing.note import NAME, BadNote, SignerKey, VerifierKey

_PREFIX = "PRIVATE+KEY+"
_ED25519 = b"\x01"


class KeyFault(Exception):
    """The key file cannot be used; the message says why."""


@dataclass(frozen=True, slots=True)
class KeyFile:
    """Where the key is. name: of the log, for a key that is made here."""

    path: Path
    name: str

    @property
    def public_path(self) -> Path:
        """Where its public keys are."""
        return self.path.with_name(self.path.name + ".pub")

    def load(self) -> SignerKey:
        """The key, made when there is none. Raises KeyFault."""
        try:
            if not self.path.exists():
                self._write(self._make(), replace=False)
            key = self._read()
            self._publish(key.verifier)
            return key
        except OSError as error:
            raise KeyFault(f"{self.path}: {error.strerror}") from None

    def rotate(self) -> SignerKey:
        """A new key in place of the old one, whose public half stays on record. Raises KeyFault."""
        self.load()
        try:
            self._write(self._make(), replace=True)
        except OSError as error:
            raise KeyFault(f"{self.path}: {error.strerror}") from None
        return self.load()

    def verifiers(self) -> list[VerifierKey]:
        """Every public key on record, the newest last. Raises KeyFault."""
        return read_verifiers(self.public_path)

    def _make(self) -> SignerKey:
        if not NAME.fullmatch(self.name):
            raise KeyFault(f"{self.name!r} is no name for a log: no spaces, no plus sign")
        return SignerKey(self.name, Ed25519PrivateKey.generate())

    def _write(self, key: SignerKey, *, replace: bool) -> None:
        """Publish first: a key that signs before its public half is on record leaves checkpoints nobody can check."""
        directory = self.path.parent
        directory.mkdir(parents=True, mode=0o700, exist_ok=True)
        secret = base64.b64encode(_ED25519 + key.private_key.private_bytes_raw()).decode()
        handle, draft = tempfile.mkstemp(prefix=f".{self.path.name}.", dir=directory)
        try:
            with os.fdopen(handle, "w") as file:
                file.write(f"{_PREFIX}{key.name}+{key.verifier.key_id}+{secret}\n")
                file.flush()
                os.fsync(file.fileno())
            if replace:
                self._publish(key.verifier)
                Path(draft).replace(self.path)
            else:
                with contextlib.suppress(FileExistsError):  # another process was first, and its key is the one
                    os.link(draft, self.path)
        finally:
            with contextlib.suppress(FileNotFoundError):
                Path(draft).unlink()

    def _publish(self, key: VerifierKey) -> None:
        known = self.public_path.read_text().splitlines() if self.public_path.exists() else []
        if str(key) in known:
            return
        with self.public_path.open("a") as file:
            file.write(f"{key}\n")
            file.flush()
            os.fsync(file.fileno())

    def _read(self) -> SignerKey:
        mode = self.path.stat().st_mode & 0o777
        if mode & 0o077:
            raise KeyFault(f"{self.path} is open to others (mode {mode:04o}); chmod 600 it")
        name, _, rest = self.path.read_text().strip().removeprefix(_PREFIX).partition("+")
        key_id, _, encoded = rest.partition("+")
        try:
            secret = base64.b64decode(encoded, validate=True).removeprefix(_ED25519)
            key = SignerKey(name, Ed25519PrivateKey.from_private_bytes(secret))
        except (ValueError, binascii.Error):
            raise KeyFault(f"{self.path} holds no Ed25519 key of a note") from None
        if key.verifier.key_id != key_id:
            raise KeyFault(f"{self.path} is damaged: the key's hash is {key.verifier.key_id}, not {key_id}")
        return key


def read_verifiers(path: Path) -> list[VerifierKey]:
    """The public keys of a file, one a line. Raises KeyFault."""
    try:
        return [VerifierKey.parse(line) for line in path.read_text().splitlines() if line.strip()]
    except OSError as error:
        raise KeyFault(f"{path}: {error.strerror}") from None
    except BadNote as fault:
        raise KeyFault(f"{path}: {fault}") from None
