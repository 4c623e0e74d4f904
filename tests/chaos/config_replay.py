"""Replay of the config events of one run, which must give the content of the tables."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from tests.chaos.judgement import BrokenPromise

Row = Mapping[str, Any]

REDACTED: Final = "[redacted]"
# Columns that the database sets at every change and events omit.
_CLOCKS: Final = frozenset({"created_at", "updated_at"})


@dataclass(frozen=True, slots=True)
class Change:
    """Config event. act: created, updated or deleted; details: of its row."""

    event_id: str
    act: str
    details: Mapping[str, Any]


def find_differences(entity: str, changes: Sequence[Change], row: Row | None) -> list[BrokenPromise]:
    """Return what the events of one entity, in sealed order, and its row say differently; row: None when there is none.

    A change may stand before one that came first: of two transactions that touch the same row, the later one can have
    the lower number. So the next to be replayed is the first one that fits what came before it.
    """
    state: dict[str, Any] | None = None
    waiting = list(changes)
    while waiting:
        change = next((one for one in waiting if _fits(state, one)), None)
        if change is None:
            return [
                BrokenPromise(
                    "config events contradict each other", f"{entity}: {waiting[0].event_id} follows from nothing"
                )
            ]
        waiting.remove(change)
        state = _apply(state, change)
    if state is None or row is None:
        same = state is None and row is None
        return (
            []
            if same
            else [
                BrokenPromise(
                    "config and its events differ",
                    f"{entity} exists only in {'events' if row is None else 'its table'}",
                )
            ]
        )
    different = sorted(name for name, value in state.items() if not _is_same(name, value, row.get(name)))
    return [BrokenPromise("config and its events differ", f"{entity}: {', '.join(different)}")] if different else []


def _fits(state: Mapping[str, Any] | None, change: Change) -> bool:
    if change.act == "created":
        return state is None
    if state is None:
        return False
    if change.act == "deleted":
        return all(_is_same(name, value, state.get(name)) for name, value in change.details["old"].items())
    return all(_is_same(name, pair[0], state.get(name)) for name, pair in change.details["changes"].items())


def _apply(state: Mapping[str, Any] | None, change: Change) -> dict[str, Any] | None:
    if change.act == "created":
        return dict(change.details["new"])
    if change.act == "deleted":
        return None
    return {**(state or {}), **{name: pair[1] for name, pair in change.details["changes"].items()}}


def _is_same(name: str, recorded: object, found: object) -> bool:
    return name in _CLOCKS or REDACTED in (recorded, found) or recorded == found
