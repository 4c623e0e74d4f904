"""Run-time files of Pulse: the directory PULSE_HOME, by default .pulse of a checkout."""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from migrations.places import state_directory

CHECKOUT = Path(__file__).resolve().parents[2]
"""Root of the checkout, or the directory of the packages of an installed Pulse."""


@dataclass(frozen=True, slots=True)
class Home:
    """Paths of the files below one home directory."""

    root: Path

    @classmethod
    def find(cls) -> Self:
        """Return the home of this checkout, or the user's home of an installed Pulse."""
        return cls(state_directory().resolve())

    @property
    def lock(self) -> Path:
        """Lock file that `pulse up` holds while it runs."""
        return self.root / "stack.lock"

    @property
    def state(self) -> Path:
        """State of the running stack as JSON, valid while the lock is held."""
        return self.root / "stack.json"

    @property
    def postgres(self) -> Path:
        """Home directory of the embedded server."""
        return self.root / "postgres"

    @property
    def keys(self) -> Path:
        """Directory of secrets, readable by its owner only."""
        return self.root / "keys"

    @property
    def channel_secrets(self) -> Path:
        """Key file of channel secrets."""
        return self.keys / "channel-secrets.key"

    @property
    def audit(self) -> Path:
        """Directory of the sealer's key and checkpoints."""
        return self.root / "audit"

    @property
    def fleet(self) -> Path:
        """File with the devices of the demo and their tokens."""
        return self.keys / "fleet.json"

    @property
    def spool(self) -> Path:
        """Directory of audit events that wait for the database."""
        return self.root / "audit" / "spool"

    def log(self, name: str) -> Path:
        """Return the log file of a process."""
        return self.root / "log" / f"{name}.log"
