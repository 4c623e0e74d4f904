"""Where Pulse keeps what it makes at run time: .pulse of a checkout, or the directory that PULSE_HOME names."""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from migrations.places import state_directory

CHECKOUT = Path(__file__).resolve().parents[2]
"""Root of the checkout; of an installed Pulse, the directory of the installed packages."""


@dataclass(frozen=True, slots=True)
class Home:
    """The files below one home directory."""

    root: Path

    @classmethod
    def find(cls) -> Self:
        """Return the home of this checkout, or of an installed Pulse that of the user."""
        return cls(state_directory().resolve())

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
