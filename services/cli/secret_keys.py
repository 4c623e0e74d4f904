"""Key file of channel secrets, and the public key beside it."""

import base64
import os
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from services.cli.home import Home
from services.shared.secret_box import key_id, public_file, read_private_keys
from services.shared.write_once import replace, write_once

_HEAD = (
    "# Keys of Pulse's channel secrets, the newest first. Keep a copy: without them the secrets of a backup are lost.\n"
)


def secrets_key_file(home: Home) -> Path:
    """Return the key file: PULSE_SECRETS_KEY_FILE, by default the one of the home."""
    return Path(os.environ.get("PULSE_SECRETS_KEY_FILE") or home.channel_secrets)


def make_keys(file: Path) -> bool:
    """Create the file with a first key unless it exists. Return whether it was created. Raises BadKeyFile, OSError."""
    made = _line(X25519PrivateKey.generate())
    is_new = write_once(file, (_HEAD + made).encode()).decode() == _HEAD + made
    _publish(file)
    return is_new


def add_key(file: Path) -> None:
    """Add a new first key to the file, whose older keys still open their secrets. Raises BadKeyFile, OSError."""
    keys = [X25519PrivateKey.generate(), *read_private_keys(file)]
    # The private key comes first, so that every secret sealed for the public key can be opened.
    replace(file, (_HEAD + "".join(map(_line, keys))).encode())
    _publish(file)


def _publish(file: Path) -> None:
    public = read_private_keys(file)[0].public_key()
    place = public_file(file)
    replace(place, f"{key_id(public)} {base64.b64encode(public.public_bytes_raw()).decode()}\n".encode())
    place.chmod(0o644)


def _line(key: X25519PrivateKey) -> str:
    return f"{key_id(key.public_key())} {base64.b64encode(key.private_bytes_raw()).decode()}\n"
