"""Run-time files of Pulse: the directory PULSE_HOME, by default .pulse of a checkout."""

from pathlib import Path
from typing import Self

from migrations.places import is_checkout, state_directory

CHECKOUT = Path(__file__).resolve().parents[2]
"""Root of the checkout, or the directory of the packages of an installed Pulse."""

PROGRAM = "./pulse" if is_checkout() else "pulse"
"""The program as an operator calls it, for commands in messages."""


class Home:
    """Paths of the files below one home directory."""

    def __init__(self, root: Path) -> None:
        self.root = root
        # Held by `pulse up` while it runs. The state is valid as long.
        self.lock = root / "stack.lock"
        self.state = root / "stack.json"
        self.postgres = root / "postgres"
        # Secrets, readable by their owner only.
        self.keys = root / "keys"
        self.channel_secrets = self.keys / "channel-secrets.key"
        self.fleet = self.keys / "fleet.json"
        # The sealer's key and checkpoints, and the audit events that wait for the database.
        self.audit = root / "audit"
        self.spool = self.audit / "spool"

    @classmethod
    def find(cls) -> Self:
        """Return the home of this checkout, or the user's home of an installed Pulse."""
        return cls(state_directory().resolve())

    def log(self, name: str) -> Path:
        """Return the log file of a process."""
        return self.root / "log" / f"{name}.log"
