"""The sealer's private key in a file that only its owner may read, with the public keys beside it.

signing.key        PRIVATE+KEY+<name>+<hash>+<base64>, one line, mode 0600; made if it is missing
signing.key.pub    <name>+<hash>+<base64>, one line for each key ever used, the newest last; auditors keep a copy
signing.key.head   the largest tree that was signed (memory.py); `{}` before the first
signing.key.handover   one line a rotation: the old public key, a space, and the step to the new one
"""

import base64
import binascii
import dataclasses
import os
from collections.abc import Iterator
from contextlib import contextmanager
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
    """Raised if the key file cannot be used; the message says why."""


@dataclass(frozen=True, slots=True)
class KeyFile:
    """The place of the key. name: the log's; None takes the name of the present key, or DEFAULT_NAME."""

    path: Path
    name: str | None = None

    @property
    def public_path(self) -> Path:
        """Path of the public keys."""
        return self.path.with_name(self.path.name + ".pub")

    @property
    def handover_path(self) -> Path:
        """Path of the handovers from old keys to new ones."""
        return self.path.with_name(self.path.name + ".handover")

    @property
    def memory(self) -> MemoryFile:
        """The memory of the newest signed checkpoint."""
        return MemoryFile(self.path.with_name(self.path.name + ".head"))

    def has_traces(self) -> bool:
        """Return whether a key was used here, even if it is gone. Raises KeyFault, MemoryFault."""
        known = self.memory.read()
        with _named_in_faults(self.path):
            return bool(known.checkpoints()) or self.public_path.exists() or self.handover_path.exists()

    def load(self) -> SignerKey:
        """Return the key; make one if there is none. Raises KeyFault."""
        with _named_in_faults(self.path):
            if not self.path.exists():
                made = self._make()
                # The empty memory first: a key without a memory file has lost it.
                write_once(self.memory.path, b"{}\n")
                write_once(self.path, render_key(made))
        key = self.find()
        assert key is not None
        return key

    def find(self) -> SignerKey | None:
        """Return the key, None if there is none. Raises KeyFault."""
        with _named_in_faults(self.path):
            if not self.path.exists():
                return None
            key = self._read()
            self._publish(key.verifier)
        if self.name is not None and key.name != self.name:
            raise KeyFault(
                f"PULSE_AUDIT_LOG_NAME is {self.name}, and the key in {self.path} signs for {key.name}: a log keeps "
                f"its name; set PULSE_AUDIT_LOG_NAME={key.name}, or name another PULSE_AUDIT_KEY_FILE for another log"
            )
        return key

    def rotate(self) -> SignerKey:
        """Replace the key by a new one, which the old one names as its successor. Raises KeyFault."""
        old = self.find()
        if old is None:
            raise KeyFault(f"there is no key in {self.path} to rotate")
        with _named_in_faults(self.path):
            new = dataclasses.replace(self, name=old.name)._make()
            # First, because a lost key can no longer sign a handover.
            self._append(self.handover_path, f"{old.verifier} {sign_handover(old, new.verifier)}")
            draft = self.path.with_name(f".{self.path.name}.{os.getpid()}")
            draft.unlink(missing_ok=True)
            write_once(draft, render_key(new))
            # Publish first: checkpoints of an unpublished key cannot be verified.
            self._publish(new.verifier)
            draft.replace(self.path)
        return self.load()

    def handover(self, old: VerifierKey, new: VerifierKey) -> str | None:
        """Return the steps from one key to another, None if it did not hand over. Raises KeyFault."""
        with _named_in_faults(self.handover_path):
            lines = self.handover_path.read_text().splitlines() if self.handover_path.exists() else []
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
        """Record a public key. Raises KeyFault."""
        with _named_in_faults(self.public_path):
            self._publish(key)

    def verifiers(self) -> list[VerifierKey]:
        """Return every recorded public key, the newest last. Raises KeyFault."""
        return read_verifiers(self.public_path)

    def _make(self) -> SignerKey:
        name = self.name or DEFAULT_NAME
        if not NAME.fullmatch(name):
            raise KeyFault(f"{name!r} is no name for a log: no spaces, no plus sign")
        return SignerKey(name, Ed25519PrivateKey.generate())

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


def render_key(key: SignerKey) -> bytes:
    """Return the content of a key file."""
    secret = base64.b64encode(_ED25519 + key.private_key.private_bytes_raw()).decode()
    return f"{_PREFIX}{key.name}+{key.verifier.key_id}+{secret}\n".encode()


def read_verifiers(path: Path) -> list[VerifierKey]:
    """Return the public keys of a file, one a line. Raises KeyFault."""
    with _named_in_faults(path):
        return [VerifierKey.parse(line) for line in path.read_text().splitlines() if line.strip()]


@contextmanager
def _named_in_faults(path: Path) -> Iterator[None]:
    """Raise a KeyFault that names the file in place of an OSError or BadNote."""
    try:
        yield
    except OSError as error:
        raise KeyFault(f"{path}: {error.strerror}") from None
    except BadNote as fault:
        raise KeyFault(f"{path}: {fault}") from None
