"""The sealer's private key in a file that only its owner may read, and beside it every public key it ever had.

signing.key        PRIVATE+KEY+<name>+<hash>+<base64>, one line, mode 0600; made when it is missing
signing.key.pub    <name>+<hash>+<base64>, one line a key, the newest last: what auditors take away
signing.key.head   the largest tree that was signed (memory.py); `{}` before the first
signing.key.handover   one line a rotation: the old public key, a space, and the step that names the new one
"""

import base64
import binascii
import dataclasses
import os
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from services.shared.sealed_log.entry import check_handover, sign_handover
from services.shared.sealed_log.memory import MemoryFile
from services.shared.sealed_log.note import NAME, BadNote, SignerKey, VerifierKey
from services.shared.write_once import write_once

DEFAULT_NAME = "pulse.local/audit"
_PREFIX = "PRIVATE+KEY+"
_ED25519 = b"\x01"


class KeyFault(Exception):
    """The key file cannot be used; the message says why."""


@dataclass(frozen=True, slots=True)
class KeyFile:
    """Where the key is. name: of the log; None takes the name of the key that is there, or DEFAULT_NAME."""

    path: Path
    name: str | None = None

    @property
    def public_path(self) -> Path:
        """Where its public keys are."""
        return self.path.with_name(self.path.name + ".pub")

    @property
    def handover_path(self) -> Path:
        """Where old keys name their successors."""
        return self.path.with_name(self.path.name + ".handover")

    @property
    def memory(self) -> MemoryFile:
        """What the key signed last."""
        return MemoryFile(self.path.with_name(self.path.name + ".head"))

    def has_traces(self) -> bool:
        """Return whether a key was here, though the private one may be gone. Raises KeyFault, MemoryFault."""
        known = self.memory.read()
        try:
            return bool(known.checkpoints()) or self.public_path.exists() or self.handover_path.exists()
        except OSError as error:
            raise KeyFault(f"{self.path}: {error.strerror}") from None

    def load(self) -> SignerKey:
        """Return the key, and make one when there is none. Raises KeyFault."""
        try:
            if not self.path.exists():
                made = self._make()
                self._begin_memory()
                self._write(made, replace=False)
        except OSError as error:
            raise KeyFault(f"{self.path}: {error.strerror}") from None
        key = self.find()
        assert key is not None
        return key

    def find(self) -> SignerKey | None:
        """Return the key, None when there is none. Raises KeyFault."""
        try:
            if not self.path.exists():
                return None
            key = self._read()
            self._publish(key.verifier)
        except OSError as error:
            raise KeyFault(f"{self.path}: {error.strerror}") from None
        if self.name is not None and key.name != self.name:
            raise KeyFault(
                f"PULSE_AUDIT_LOG_NAME is {self.name}, and the key in {self.path} signs for {key.name}: a log keeps "
                f"its name; set PULSE_AUDIT_LOG_NAME={key.name}, or name another PULSE_AUDIT_KEY_FILE for another log"
            )
        return key

    def rotate(self) -> SignerKey:
        """Put a new key in place of the old one, which names it as its successor. Raises KeyFault."""
        old = self.find()
        if old is None:
            raise KeyFault(f"there is no key in {self.path} to rotate")
        try:
            new = dataclasses.replace(self, name=old.name)._make()
            # First: an old key that is gone can name nothing any more.
            self._append(self.handover_path, f"{old.verifier} {sign_handover(old, new.verifier)}")
            self._write(new, replace=True)
        except OSError as error:
            raise KeyFault(f"{self.path}: {error.strerror}") from None
        return self.load()

    def handover(self, old: VerifierKey, new: VerifierKey) -> str | None:
        """Return the steps by which one key handed over to another, None when it did not. Raises KeyFault."""
        try:
            lines = self.handover_path.read_text().splitlines() if self.handover_path.exists() else []
        except OSError as error:
            raise KeyFault(f"{self.handover_path}: {error.strerror}") from None
        named = dict(line.split(" ", 1) for line in lines if " " in line)
        steps, holder = [], str(old)
        while holder in named and holder != str(new):
            steps.append(named.pop(holder))
            holder = steps[-1].partition("|")[0]
        try:
            check_handover(old, ",".join(steps), new)
        except BadNote:
            return None
        return ",".join(steps)

    def trust(self, key: VerifierKey) -> None:
        """Put a public key on record. Raises KeyFault."""
        try:
            self._publish(key)
        except OSError as error:
            raise KeyFault(f"{self.public_path}: {error.strerror}") from None

    def verifiers(self) -> list[VerifierKey]:
        """Return every public key on record, the newest last. Raises KeyFault."""
        return read_verifiers(self.public_path)

    def _make(self) -> SignerKey:
        name = self.name or DEFAULT_NAME
        if not NAME.fullmatch(name):
            raise KeyFault(f"{name!r} is no name for a log: no spaces, no plus sign")
        return SignerKey(name, Ed25519PrivateKey.generate())

    def _write(self, key: SignerKey, *, replace: bool) -> None:
        """Publish first: a key that signs before its public half is on record leaves checkpoints nobody can check."""
        secret = base64.b64encode(_ED25519 + key.private_key.private_bytes_raw()).decode()
        text = f"{_PREFIX}{key.name}+{key.verifier.key_id}+{secret}\n".encode()
        if not replace:
            write_once(self.path, text)
            return
        draft = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        draft.unlink(missing_ok=True)
        write_once(draft, text)
        self._publish(key.verifier)
        draft.replace(self.path)

    def _begin_memory(self) -> None:
        """Leave an empty memory before the key: a key without one has lost it."""
        write_once(self.memory.path, b"{}\n")

    def _publish(self, key: VerifierKey) -> None:
        known = self.public_path.read_text().splitlines() if self.public_path.exists() else []
        if str(key) not in known:
            self._append(self.public_path, str(key))

    @staticmethod
    def _append(path: Path, line: str) -> None:
        with path.open("a") as file:
            file.write(f"{line}\n")
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
