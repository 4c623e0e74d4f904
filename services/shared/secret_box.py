"""Encryption of channel secrets, which only the delivery worker can open.

A sealed member of a configuration is `sealed:1:<key>:<box>`. key: the first 16 hex digits of the SHA-256 of the public
key. box: base64url of an ephemeral X25519 public key and of the AES-256-GCM ciphertext of the member as JSON.
HKDF-SHA-256 derives the AES key and nonce from the shared secret; its salt is both public keys. The associated data is
the JSON list of tenant, channel and member, so that a box copied to another place does not open. The box reveals only
the length of its content. It does not authenticate its writer.
"""

import base64
import binascii
import hashlib
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import orjson
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

_PREFIX = "sealed:1:"
_KEY_BYTES = 32
_NONCE_BYTES = 12
_PURPOSE = b"pulse channel secret 1"


class BadKeyFile(ValueError):
    """A key file that cannot be used. The message names the file and contains no key."""


class UnknownKey(Exception):
    """A member that was sealed for a key that is not in the file."""


class NotOpened(Exception):
    """A member that was altered, or sealed for another channel."""


def key_id(public: X25519PublicKey) -> str:
    """Return the name of a key: 16 hex digits."""
    return hashlib.sha256(public.public_bytes_raw()).hexdigest()[:16]


def protection(public: X25519PublicKey | None) -> str:
    """Return how secrets are stored, for logs and /health."""
    if public is None:
        return "plain text: set PULSE_SECRETS_KEY_FILE and run `pulse secrets encrypt`"
    return f"sealed for key {key_id(public)}"


def public_file(file: Path) -> Path:
    """Return the file with the public key of a key file."""
    return file.with_name(file.name + ".pub")


def is_sealed(member: Any) -> bool:
    """Return whether a member of a configuration is sealed."""
    return isinstance(member, str) and member.startswith(_PREFIX)


def sealed_for(member: str) -> str:
    """Return the name of the key that opens a sealed member."""
    return member.removeprefix(_PREFIX).partition(":")[0]


def seal_config(
    public: X25519PublicKey, config: Mapping[str, Any], *, tenant_id: str, channel_id: int
) -> dict[str, str | None]:
    """Return the configuration with every member sealed. A member without a value stays null."""
    return {
        name: None if value is None else _seal(public, value, (tenant_id, channel_id, name))
        for name, value in config.items()
    }


def _seal(public: X25519PublicKey, value: Any, place: tuple[str, int, str]) -> str:
    ephemeral = X25519PrivateKey.generate()
    sender = ephemeral.public_key().public_bytes_raw()
    key, nonce = _derive(ephemeral.exchange(public), sender, public)
    box = sender + AESGCM(key).encrypt(nonce, orjson.dumps(value), orjson.dumps(place))
    return f"{_PREFIX}{key_id(public)}:{base64.urlsafe_b64encode(box).rstrip(b'=').decode()}"


def _derive(shared: bytes, sender: bytes, recipient: X25519PublicKey) -> tuple[bytes, bytes]:
    salt = sender + recipient.public_bytes_raw()
    derived = HKDF(hashes.SHA256(), _KEY_BYTES + _NONCE_BYTES, salt, _PURPOSE).derive(shared)
    return derived[:_KEY_BYTES], derived[_KEY_BYTES:]


class KeyRing:
    """The private keys of a file, the newest first. The file is read again when a key is missing."""

    def __init__(self, file: Path | None) -> None:
        self._file = file
        self._keys: Sequence[X25519PrivateKey] = ()
        self._open = lru_cache(maxsize=4096)(self._decrypt)
        self._read()

    @property
    def newest(self) -> X25519PublicKey | None:
        """The key for which new secrets are sealed. None without a file."""
        return self._keys[0].public_key() if self._keys else None

    @property
    def names(self) -> set[str]:
        """The names of the keys."""
        return {key_id(key.public_key()) for key in self._keys}

    def open_config(self, config: Mapping[str, Any], *, tenant_id: str, channel_id: int) -> dict[str, Any]:
        """Return the configuration with every sealed member opened. Raises UnknownKey and NotOpened."""
        return {
            name: orjson.loads(self._open(value, (tenant_id, channel_id, name))) if is_sealed(value) else value
            for name, value in config.items()
        }

    def _read(self) -> None:
        if self._file is not None:
            self._keys = read_private_keys(self._file)

    def _decrypt(self, text: str, place: tuple[str, int, str]) -> bytes:
        name, _, encoded = text.removeprefix(_PREFIX).partition(":")
        key = self._find(name) or self._find_again(name)
        try:
            box = base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4))
            sender = box[:_KEY_BYTES]
            shared = key.exchange(X25519PublicKey.from_public_bytes(sender))
            aes, nonce = _derive(shared, sender, key.public_key())
            return AESGCM(aes).decrypt(nonce, box[_KEY_BYTES:], orjson.dumps(place))
        except (ValueError, binascii.Error, InvalidTag):
            raise NotOpened("it was altered, or sealed for another channel") from None

    def _find(self, name: str) -> X25519PrivateKey | None:
        return next((key for key in self._keys if key_id(key.public_key()) == name), None)

    def _find_again(self, name: str) -> X25519PrivateKey:
        try:
            self._read()
        except BadKeyFile as fault:
            raise UnknownKey(f"they are sealed for key {name[:16]}, and {fault}") from None
        key = self._find(name)
        if key is None:
            place = "PULSE_SECRETS_KEY_FILE is not set" if self._file is None else "its file does not hold that key"
            raise UnknownKey(f"they are sealed for key {name[:16]}, and {place}")
        return key


def read_private_keys(file: Path) -> list[X25519PrivateKey]:
    """Return the keys of a file, the newest first. Raises BadKeyFile."""
    return [X25519PrivateKey.from_private_bytes(raw) for raw in _read_keys(file)]


def read_public_key(file: Path) -> X25519PublicKey:
    """Return the public key of the file beside a key file. Raises BadKeyFile."""
    return X25519PublicKey.from_public_bytes(_read_keys(public_file(file))[0])


def _read_keys(file: Path) -> list[bytes]:
    try:
        lines = [line.split() for line in file.read_text(encoding="ascii").splitlines() if line and line[0] != "#"]
        keys = [base64.b64decode(key, validate=True) for _name, key in lines]
    except OSError as error:
        raise BadKeyFile(f"{file} cannot be read: {error.strerror}") from None
    except ValueError:  # not text, not two words, not base64
        raise BadKeyFile(f"{file} is not a key file of `pulse secrets`") from None
    if not keys or any(len(key) != _KEY_BYTES for key in keys):
        raise BadKeyFile(f"{file} is not a key file of `pulse secrets`")
    return keys


def shown_url(url: str, fingerprint_key: bytes) -> str:
    """Return the part of an address that may be shown, as delivery._shown_url does."""
    origin = "/".join(url.split("?", maxsplit=1)[0].split("#", maxsplit=1)[0].split("/")[:3])
    return f"{origin}/… ({hashlib.sha256(fingerprint_key + url.encode()).hexdigest()[:8]})"
