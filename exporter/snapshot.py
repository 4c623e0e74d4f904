"""One pass over all views in one snapshot of the database, in which no view can harm another."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import asyncpg

from exporter.catalog import View, read_catalog
from exporter.families import Row
from exporter.link import Link
from exporter.shape import Refusal, Shape, family_names, shape_of
from services.shared.db import UNAVAILABLE

# Below this a view would be cancelled before it had begun.
LEAST_SECONDS = 0.005


@dataclass(frozen=True, slots=True)
class Limits:
    """How much one view may cost."""

    view_seconds: float
    max_rows: int


@dataclass(frozen=True, slots=True)
class Reading:
    """What a pass got from one view: rows, or why there are none; seconds in the database, None if never asked."""

    view: View
    shape: Shape | Refusal
    rows: Sequence[Row] | Refusal
    seconds: float | None


async def read_views(
    link: Link, *, limits: Limits, seconds: float, cost: Mapping[str, float], taken: frozenset[str]
) -> list[Reading]:
    """Read every view in one transaction of at most so many seconds.

    cost: seconds each view took last time, so that those that are likely to be left out come last; taken: names that
    no view may have. Raises what UNAVAILABLE holds when the connection is lost, and asyncpg.PostgresError when the
    catalog cannot be read.
    """
    deadline = asyncio.get_running_loop().time() + seconds
    await link.begin(opening(limits, seconds), seconds=seconds)
    shapes = _settle_names(await read_catalog(link), taken, max_rows=limits.max_rows)
    readings: list[Reading] = []
    for view, shape in sorted(shapes, key=lambda pair: cost.get(pair[0].name, 0.0)):
        if isinstance(shape, Refusal):
            readings.append(Reading(view, shape, shape, None))
        else:
            readings.append(await _read_view(link, view, shape, limits=limits, deadline=deadline))
            if isinstance(readings[-1].rows, Refusal):
                await link.execute("rollback to savepoint view")
    await link.commit()
    return readings


def opening(limits: Limits, seconds: float) -> str:
    """What opens a pass's transaction: one snapshot, nothing written, no plan compiled, no lock waited for long."""
    return (
        "begin isolation level repeatable read read only;"
        "set local search_path = pg_catalog;"
        "set local jit = off;"
        f"set local statement_timeout = {_milliseconds(min(seconds, limits.view_seconds))};"
        f"set local lock_timeout = {_milliseconds(limits.view_seconds / 2)};"
        # Should this process hang, its snapshot must not hold back vacuum.
        f"set local idle_in_transaction_session_timeout = {_milliseconds(seconds + 1)};"
        "savepoint view"
    )


def _settle_names(views: Sequence[View], taken: frozenset[str], *, max_rows: int) -> list[tuple[View, Shape | Refusal]]:
    """Each view with its shape; of two that would share a name, the one that came later is refused."""
    owners = dict.fromkeys(taken, "a metric of the exporter itself")
    settled: list[tuple[View, Shape | Refusal]] = []
    for view in views:
        shape = shape_of(view, max_rows=max_rows)
        if isinstance(shape, Shape):
            clash = next((owners[name] for name in sorted(shape.names()) if name in owners), None)
            if clash is None:
                owners.update(dict.fromkeys(shape.names(), f"view {view.name}"))
            else:
                shape = Refusal(f"its name clashes with {clash}")
        settled.append((view, shape))
    return settled


async def _read_view(link: Link, view: View, shape: Shape, *, limits: Limits, deadline: float) -> Reading:
    seconds = min(limits.view_seconds, deadline - asyncio.get_running_loop().time())
    if seconds < LEAST_SECONDS:
        return Reading(view, shape, Refusal("the scrape's time was over before its turn came"), None)
    if seconds < limits.view_seconds:
        await link.execute(f"set local statement_timeout = {_milliseconds(seconds)}")
    started = time.perf_counter()
    rows: Sequence[Row] | Refusal
    try:
        rows = await link.fetch(shape.query)
    except UNAVAILABLE:
        raise
    except asyncpg.PostgresError as error:
        rows = Refusal(f"{error.sqlstate}: {error}")
    return Reading(view, shape, rows, time.perf_counter() - started)


def _milliseconds(seconds: float) -> int:
    """At least 1: to Postgres 0 means for ever."""
    return max(1, round(seconds * 1000))


def taken_names(families: Sequence[tuple[str, str]]) -> frozenset[str]:
    """All names that families of (name, type) occupy."""
    return frozenset().union(*(family_names(name, kind) for name, kind in families))
