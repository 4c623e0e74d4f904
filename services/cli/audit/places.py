"""Files of the key and the kept checkpoints on this machine, and times as options."""

import os
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

from services.cli.errors import CommandFailed
from services.cli.home import Home
from services.shared.sealed_log.key_file import KeyFault, KeyFile, read_verifiers
from services.shared.sealed_log.note import VerifierKey

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def key_file(home: Home) -> KeyFile:
    """Return the sealer's key file: PULSE_AUDIT_KEY_FILE, or the local stack's."""
    named = os.environ.get("PULSE_AUDIT_KEY_FILE")
    path = Path(named) if named else home.audit / "signing.key"
    return KeyFile(path, os.environ.get("PULSE_AUDIT_LOG_NAME") or None)


def checkpoint_directory(home: Home) -> Path:
    """Return the directory of kept checkpoints: PULSE_AUDIT_ANCHOR_DIR, or the local stack's."""
    named = os.environ.get("PULSE_AUDIT_ANCHOR_DIR")
    return Path(named) if named else home.audit / "checkpoints"


def public_keys(home: Home, given: Path | None) -> list[VerifierKey]:
    """Return the public keys to trust. Raises CommandFailed if there are none."""
    path = given or key_file(home).public_path
    try:
        keys = read_verifiers(path)
    except KeyFault as fault:
        raise CommandFailed(f"there is no public key to verify with: {fault}") from None
    if not keys:
        raise CommandFailed(f"{path} holds no public key")
    return keys


def parse_time(text: str) -> datetime:
    """Parse ISO 8601, in UTC unless it has an offset, or an age such as 90m or 7d. Raises CommandFailed."""
    age = re.fullmatch(r"(\d{1,7})([smhd])", text)
    try:
        if age:
            return datetime.now(UTC) - timedelta(**{_UNITS[age[2]]: int(age[1])})
        time = datetime.fromisoformat(text)
    except (ValueError, OverflowError):
        raise CommandFailed(
            f"{text} is no time: use the form 2026-01-31T12:00:00Z, or an age such as 90m or 7d"
        ) from None
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time
