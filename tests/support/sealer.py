"""Sealing in tests: readers see committed events only after it."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeAlias

from services.ops_worker.sealing.sealer import Sealer
from services.shared.sealed_log.key_file import KeyFile

Seal: TypeAlias = Callable[[], Awaitable[int]]
"""One pass of the sealer over what is committed."""


def sealer_of(path: Path, *, rows: int = 50_000) -> Sealer:
    """Return a sealer with its key in the directory."""
    return Sealer("test", KeyFile(path / "signing.key", "pulse.test/audit"), rows_per_pass=rows, lease_seconds=60.0)
