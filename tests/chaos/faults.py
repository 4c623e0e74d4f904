"""Schedule of faults. The same seed gives the same schedule."""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal, get_args

from tests.chaos.proxy import Cut, Side

Kind = Literal[
    "kill_api",
    "kill_sealer",
    "pause_sealer",
    "kill_backend",
    "terminate_backend",
    "kill_postmaster",
    "database_outage",
    "cut_commit",
    "cut_message",
    "stall_both_ways",
    "stall_answers",
    "fill_disk",
    "fill_disk_and_stall",
]
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)

# The whole deck is dealt before it is shuffled again, so that no kind is absent for long.
_DECK: Final[tuple[Kind, ...]] = (*KINDS, "kill_api", "cut_commit", "cut_commit", "cut_message", "cut_message")
# At least twice the sealer's lease, so that another sealer takes over meanwhile.
_PAUSE_SECONDS = (3.0, 5.0)
# Longer than PULSE_AUDIT_DATABASE_SECONDS of the run, so that the spool is used.
_STALL_SECONDS = (0.5, 3.0)
_OUTAGE_SECONDS = (2.0, 5.0)
_DISK_SECONDS = (3.0, 6.0)
_BETWEEN_SECONDS = (1.5, 2.8)
_CALM_SECONDS = 2.0
"""Time without a fault at the beginning and the end of a run."""


@dataclass(frozen=True, slots=True)
class Fault:
    """Fault of a schedule. pick: chooses the victim; cut, sender and skip: the place of a cut."""

    number: int
    at_seconds: float
    kind: Kind
    seconds: float
    pick: int
    cut: Cut
    sender: Side
    skip: int
    """Number of messages that pass before the cut."""


def make_schedule(seed: int, seconds: float) -> list[Fault]:
    """Return the faults of a run, by the time they begin."""
    randomness = random.Random(seed)
    kinds = _deal(randomness)
    faults: list[Fault] = []
    at_seconds = _CALM_SECONDS
    while at_seconds < seconds - _CALM_SECONDS:
        faults.append(_make(randomness, len(faults), at_seconds, next(kinds)))
        at_seconds += randomness.uniform(*_BETWEEN_SECONDS)
    return faults


def _deal(randomness: random.Random) -> Iterator[Kind]:
    while True:
        yield from randomness.sample(_DECK, len(_DECK))


def _make(randomness: random.Random, number: int, at_seconds: float, kind: Kind) -> Fault:
    lengths = {
        "pause_sealer": _PAUSE_SECONDS,
        "database_outage": _OUTAGE_SECONDS,
        "stall_both_ways": _STALL_SECONDS,
        "stall_answers": _STALL_SECONDS,
        "fill_disk": _DISK_SECONDS,
        "fill_disk_and_stall": _DISK_SECONDS,
    }
    # The order of draws is the same for every kind, so that a change of one kind does not change the others.
    return Fault(
        number=number,
        at_seconds=round(at_seconds, 3),
        kind=kind,
        seconds=round(randomness.uniform(*lengths.get(kind, (0.0, 0.0))), 3),
        pick=randomness.randrange(1 << 16),
        cut=randomness.choice(("before", "after")),
        sender=randomness.choice(("client", "server")),
        skip=randomness.randrange(40),
    )
