"""What goes wrong and when: the same seed gives the same schedule."""

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

# A deck is played to its end before it is shuffled again, so that no kind stays away for long.
_DECK: Final[tuple[Kind, ...]] = (*KINDS, "kill_api", "cut_commit", "cut_commit", "cut_message", "cut_message")
# Twice the sealer's lease and longer: another one takes over before it wakes up.
_PAUSE_SECONDS = (3.0, 5.0)
# Longer than PULSE_AUDIT_DATABASE_SECONDS of the run, so that the spool is used.
_STALL_SECONDS = (0.5, 3.0)
_OUTAGE_SECONDS = (2.0, 5.0)
_DISK_SECONDS = (3.0, 6.0)
_BETWEEN_SECONDS = (1.5, 2.8)
_CALM_SECONDS = 2.0
"""At the beginning and at the end of a run, without a fault."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that goes wrong. pick chooses among those it may hit; cut, sender and skip say where to cut."""

    number: int
    at_seconds: float
    kind: Kind
    seconds: float
    pick: int
    cut: Cut
    sender: Side
    skip: int
    """Messages that pass before the cut."""


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
    # Drawn in the same order for every kind, so that a change of one kind leaves the others as they are.
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
