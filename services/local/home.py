"""Where a checkout keeps what it makes at run time: .pulse, or the directory that PULSE_HOME names."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Self

CHECKOUT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class Home:
    """The files below one home directory."""

    root: Path

    @classmethod
    def find(cls) -> Self:
        """The home of this checkout."""
        named = os.environ.get("PULSE_HOME")
        return cls(Path(named).expanduser().resolve() if named else CHECKOUT / ".pulse")

    @property
    def lock(self) -> Path:
        """Held by `pulse up` while it runs."""
        return self.root / "stack.lock"

    @property
    def state(self) -> Path:
        """What runs now, as JSON; only true while the lock is held."""
        return self.root / "stack.json"

    @property
    def postgres(self) -> Path:
        """Home of the embedded server."""
        return self.root / "postgres"

    @property
    def keys(self) -> Path:
        """Secrets of this machine, closed to others."""
        return self.root / "keys"

    @property
    def channel_secrets(self) -> Path:
        """Keys of the secrets of channels."""
        return self.keys / "channel-secrets.key"

    @property
    def audit(self) -> Path:
        """The sealer's key, and the checkpoints it signed."""
        return self.root / "audit"

    @property
    def fleet(self) -> Path:
        """Tokens of the demo's devices."""
        return self.keys / "fleet.json"

    @property
    def spool(self) -> Path:
        """Audit events that wait for the database."""
        return self.root / "audit" / "spool"

    def log(self, name: str) -> Path:
        """Log file of a process."""
        return self.root / "log" / f"{name}.log"
