"""One pass over all views in one snapshot of the database. A failing view does not affect others."""

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

# Interval at which the server checks, during a query, whether this client is still connected.
CHECK_MILLISECONDS = 500
OUT_OF_TIME = ViewRefusal("the scrape's time was over before its turn came")
_HEAL = "rollback to savepoint view"
# Errors about objects, rights, limits and the server. The reason is logged, and messages of other classes may quote a
# row, such as 'invalid input syntax for type double precision: "boiler-1"'.
_WITHOUT_VALUES = ("42", "53", "55", "57", "58")


@dataclass(frozen=True, slots=True)
class ScrapeLimits:
    """Limits of one view."""

    view_seconds: float
    max_rows: int


@dataclass(frozen=True, slots=True)
class ViewReading:
    """The result of one view in a pass. seconds: duration of its query, None if it was not read."""

    view: View
    shape: ViewShape | ViewRefusal
    rows: Sequence[Row] | ViewRefusal
    seconds: float | None


async def read_views(
    link: Link, *, limits: ScrapeLimits, deadline: Deadline, cost: Mapping[str, float], taken: frozenset[str]
) -> list[ViewReading]:
    """Read every view in one transaction that ends by the deadline.

    cost: duration of each view in the last pass in seconds, because slow views come last. taken: names that no view
    may have. Raises an exception of UNAVAILABLE if the connection is lost, and asyncpg.PostgresError if the catalog
    cannot be read.
    """
    await link.begin(opening(limits, deadline.left()))
    shapes = _settle_names(await read_catalog(link), taken, max_rows=limits.max_rows)
    turns = _Turns(link, limits, deadline)
    readings = [await turns.read(*pair) for pair in sorted(shapes, key=lambda pair: cost.get(pair[0].name, 0.0))]
    # Roll back to the savepoint first: settings that functions in views have changed must not outlive the pass.
    await link.end(f"{_HEAL}; commit")
    return readings


def opening(limits: ScrapeLimits, seconds: float) -> str:
    """Return the statements that open a pass: one read-only snapshot, one process, short waits for locks."""
    return (
        "begin isolation level repeatable read read only;"
        "set local search_path = pg_catalog;"
        "set local jit = off;"
        "set local max_parallel_workers_per_gather = 0;"
        f"set local statement_timeout = {_milliseconds(limits.view_seconds)};"
        f"set local lock_timeout = {_milliseconds(limits.view_seconds / 2)};"
        # If this process ends, its query must end as well.
        f"set local client_connection_check_interval = {CHECK_MILLISECONDS};"
        # If this process hangs, its snapshot must not hold back vacuum.
        f"set local idle_in_transaction_session_timeout = {_milliseconds(seconds + 1)};"
        "savepoint view"
    )


def _settle_names(
    views: Sequence[View], taken: frozenset[str], *, max_rows: int
) -> list[tuple[View, ViewShape | ViewRefusal]]:
    """Return each view with its shape. If two views would share a name, the newer one is refused."""
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
    """Runs the views of one pass one after the other, each within the remaining time.

    All views share one savepoint. A read-only transaction can lose only its error state and its settings, so only a
    failure costs a further round trip.
    """

    def __init__(self, link: Link, limits: ScrapeLimits, deadline: Deadline) -> None:
        self._link = link
        self._limits = limits
        self._deadline = deadline
        self._timeout = limits.view_seconds

    async def read(self, view: View, shape: ViewShape | ViewRefusal) -> ViewReading:
        """Return the rows of the view, or the reason why there are none."""
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
                # A scraper with more time has joined the pass meanwhile.
                return await self.read(view, shape)
            return ViewReading(view, shape, ViewRefusal(_reason(error)), took)
        return ViewReading(view, shape, rows, time.perf_counter() - started)

    def _most(self) -> float:
        """Return the seconds that the next view may take."""
        return min(self._limits.view_seconds, self._deadline.left())


def _reason(error: asyncpg.PostgresError) -> str:
    state = str(error.sqlstate)
    return f"{state}: {error.message if state.startswith(_WITHOUT_VALUES) else type(error).__name__}"


def _milliseconds(seconds: float) -> int:
    """Return milliseconds, at least 1, because 0 means no time-out to Postgres."""
    return max(1, round(seconds * 1000))


def taken_names(families: Sequence[tuple[str, str]]) -> frozenset[str]:
    """Return all names that families of (name, type) occupy."""
    return frozenset().union(*(family_names(name, kind) for name, kind in families))
