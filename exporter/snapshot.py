"""One pass over all views in one snapshot of the database, in which no view can harm another."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import asyncpg

from exporter.catalog import View, read_catalog
from exporter.deadline import LEAST_SECONDS, Deadline
from exporter.families import Row
from exporter.link import Link
from exporter.shape import ViewRefusal, ViewShape, family_names, shape_of
from services.shared.db import UNAVAILABLE

# How often the server looks, during a query, whether we are still there.
CHECK_MILLISECONDS = 500
OUT_OF_TIME = ViewRefusal("the scrape's time was over before its turn came")
_HEAL = "rollback to savepoint view"
# Errors about objects, rights, limits and the server. Messages of other classes may quote a row, such as
# 'invalid input syntax for type double precision: "boiler-1"', and the reason goes to the log.
_WITHOUT_VALUES = ("42", "53", "55", "57", "58")


@dataclass(frozen=True, slots=True)
class ScrapeLimits:
    """How much one view may cost."""

    view_seconds: float
    max_rows: int


@dataclass(frozen=True, slots=True)
class ViewReading:
    """What a pass got from one view: rows, or why there are none; seconds in the database, None if never asked."""

    view: View
    shape: ViewShape | ViewRefusal
    rows: Sequence[Row] | ViewRefusal
    seconds: float | None


async def read_views(
    link: Link, *, limits: ScrapeLimits, deadline: Deadline, cost: Mapping[str, float], taken: frozenset[str]
) -> list[ViewReading]:
    """Read every view in one transaction that is over by the deadline.

    cost: seconds each view took last time, so that those that are likely to be left out come last; taken: names that
    no view may have. Raises what UNAVAILABLE holds when the connection is lost, and asyncpg.PostgresError when the
    catalog cannot be read.
    """
    await link.begin(opening(limits, deadline.left()))
    shapes = _settle_names(await read_catalog(link), taken, max_rows=limits.max_rows)
    turns = _Turns(link, limits, deadline)
    readings = [await turns.read(*pair) for pair in sorted(shapes, key=lambda pair: cost.get(pair[0].name, 0.0))]
    # Back to the savepoint first: what functions in views did to the session's settings must not outlive the pass.
    await link.end(f"{_HEAL}; commit")
    return readings


def opening(limits: ScrapeLimits, seconds: float) -> str:
    """What opens a pass's transaction: one snapshot, one process, nothing written, no lock waited for long."""
    return (
        "begin isolation level repeatable read read only;"
        "set local search_path = pg_catalog;"
        "set local jit = off;"
        "set local max_parallel_workers_per_gather = 0;"
        f"set local statement_timeout = {_milliseconds(limits.view_seconds)};"
        f"set local lock_timeout = {_milliseconds(limits.view_seconds / 2)};"
        # Should this process end or give up, its query must not go on.
        f"set local client_connection_check_interval = {CHECK_MILLISECONDS};"
        # Should this process hang, its snapshot must not hold back vacuum.
        f"set local idle_in_transaction_session_timeout = {_milliseconds(seconds + 1)};"
        "savepoint view"
    )


def _settle_names(
    views: Sequence[View], taken: frozenset[str], *, max_rows: int
) -> list[tuple[View, ViewShape | ViewRefusal]]:
    """Each view with its shape; of two that would share a name, the one that came later is refused."""
    owners = dict.fromkeys(taken, "a metric of the exporter itself")
    settled: list[tuple[View, ViewShape | ViewRefusal]] = []
    for view in views:
        shape = shape_of(view, max_rows=max_rows)
        if isinstance(shape, ViewShape):
            clash = next((owners[name] for name in sorted(shape.names()) if name in owners), None)
            if clash is None:
                owners.update(dict.fromkeys(shape.names(), f"view {view.name}"))
            else:
                shape = ViewRefusal(f"its name clashes with {clash}")
        settled.append((view, shape))
    return settled


class _Turns:
    """Runs the views of one pass, one after the other, each within what is left of the time.

    One savepoint does for all of them: a read-only transaction has no state that it could lose but its error and its
    settings, so only a failure costs a round trip to heal.
    """

    def __init__(self, link: Link, limits: ScrapeLimits, deadline: Deadline) -> None:
        self._link = link
        self._limits = limits
        self._deadline = deadline
        self._timeout = limits.view_seconds

    async def read(self, view: View, shape: ViewShape | ViewRefusal) -> ViewReading:
        """What the view gives, or why it gives nothing."""
        if isinstance(shape, ViewRefusal):
            return ViewReading(view, shape, shape, None)
        timeout = self._most()
        if timeout < LEAST_SECONDS:
            return ViewReading(view, shape, OUT_OF_TIME, None)
        if timeout != self._timeout:
            await self._link.execute(f"set local statement_timeout = {_milliseconds(timeout)}")
            self._timeout = timeout
        started = time.perf_counter()
        try:
            rows = await self._link.fetch(shape.query)
        except UNAVAILABLE:
            raise
        except asyncpg.PostgresError as error:
            took = time.perf_counter() - started
            await self._link.execute(_HEAL)
            self._timeout = self._limits.view_seconds
            if isinstance(error, asyncpg.QueryCanceledError) and timeout < self._most():
                # Somebody more patient has joined meanwhile.
                return await self.read(view, shape)
            return ViewReading(view, shape, ViewRefusal(_reason(error)), took)
        return ViewReading(view, shape, rows, time.perf_counter() - started)

    def _most(self) -> float:
        """Seconds that the next view may take."""
        return min(self._limits.view_seconds, self._deadline.left())


def _reason(error: asyncpg.PostgresError) -> str:
    state = str(error.sqlstate)
    return f"{state}: {error.message if state.startswith(_WITHOUT_VALUES) else type(error).__name__}"


def _milliseconds(seconds: float) -> int:
    """At least 1: to Postgres 0 means for ever."""
    return max(1, round(seconds * 1000))


def taken_names(families: Sequence[tuple[str, str]]) -> frozenset[str]:
    """All names that families of (name, type) occupy."""
    return frozenset().union(*(family_names(name, kind) for name, kind in families))
