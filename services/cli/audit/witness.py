"""Evidence that a verification compares the log with, and its origin."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from services.cli.audit.entries import committed
from services.shared.sealed_log.block import Broken
from services.shared.sealed_log.kept import Kept
from services.shared.sealed_log.key_file import KeyFault, KeyFile
from services.shared.sealed_log.memory import MemoryFault
from services.shared.sealed_log.note import BadNote, VerifierKey, open_checkpoint


class Witness(NamedTuple):
    """Origin of the evidence. is_outside: a public key, checkpoint or export came from elsewhere."""

    place: Path
    is_outside: bool
    warnings: list[str]


class Remembered(NamedTuple):
    """Evidence of the sealer's memory, on its machine."""

    kept: list[Kept]
    faults: list[Broken]


def is_elsewhere(given: Path | None, own: Path) -> bool:
    """Return whether a given file is neither this machine's own nor in its own directory."""
    if given is None:
        return False
    path, ours = given.resolve(), own.resolve()
    return path != ours and ours not in path.parents


def read_memory(keys: KeyFile, trusted: Sequence[VerifierKey]) -> Remembered:
    """Return the largest tree that this machine's sealer signed, and why the sealer has stopped, if it has.

    Return nothing if the memory belongs to a log with other keys or may not be read by this user.
    """
    nothing = Remembered([], [])
    if not os.access(keys.memory.path, os.R_OK):
        return nothing
    try:
        known = keys.memory.read()
        if known.head is not None:
            open_checkpoint(known.head, trusted)
        elif not set(keys.verifiers()).intersection(trusted):
            return nothing
    except (MemoryFault, KeyFault) as fault:
        return Remembered([], [Broken(str(fault))])
    except BadNote:
        return nothing
    faults = [] if known.alarm is None else [Broken(f"the sealer has stopped: {known.alarm.message}")]
    return Remembered(committed(keys), faults)
