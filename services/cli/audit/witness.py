"""What a verification holds the log against, and how far that is to be trusted."""

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
    """place: of the checkpoints. is_outside: whether a public key, checkpoint or export came from elsewhere."""

    place: Path
    is_outside: bool
    warnings: list[str]


class Remembered(NamedTuple):
    """What the sealer's memory adds, on the machine that has it."""

    kept: list[Kept]
    faults: list[Broken]


def is_elsewhere(given: Path | None, own: Path) -> bool:
    """Return whether a file that was named is another one than this machine's own, or than those in its directory."""
    if given is None:
        return False
    path, ours = given.resolve(), own.resolve()
    return path != ours and ours not in path.parents


def read_memory(keys: KeyFile, trusted: Sequence[VerifierKey]) -> Remembered:
    """Return the largest tree that the sealer of this machine signed, and why it has stopped, if it has.

    Nothing, when the memory is of a log with other keys, or is not this user's to read.
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
