"""Scrapes. Concurrent scrapes share one pass, so that any number of scrapers costs the database one pass.

scrape ─▶ a pass runs? ── yes, in time ─▶ extend its deadline, wait until the own deadline ─▶ exposition
              └── no ─▶ begin (on the kept connection or a new one) ─▶ read ─▶ compose ─┘
"""

import asyncio
import logging
import time
from datetime import UTC, datetime
from functools import partial

import asyncpg
from prometheus_client.core import Metric

from exporter.deadline import Deadline
from exporter.exposition import Exposition, compose, compose_blind, names_of, offload
from exporter.link import Link
from exporter.shape import ViewRefusal
from exporter.snapshot import OUT_OF_TIME, ScrapeLimits, read_views
from services.shared.db import UNAVAILABLE
from services.shared.server import PROBE_SECONDS, Process
from services.shared.settings import ExporterSettings

log = logging.getLogger(__name__)

# After this time a pass is canceled from this side, because the time-outs of the server did not take effect.
GRACE_SECONDS = 0.2


class ViewCollector:
    """The views of one database, read over one connection, one pass at a time."""

    def __init__(self, settings: ExporterSettings, process: Process) -> None:
        self._process = process
        self._limits = ScrapeLimits(settings.exporter_view_timeout_seconds, settings.exporter_max_rows)
        self._link = Link(settings)
        self._busy = asyncio.Lock()
        self._running: asyncio.Task[Exposition] | None = None
        self._longest = settings.exporter_deadline_seconds
        self._deadline: Deadline | None = None
        self._cost: dict[str, float] = {}
        self._refused: dict[str, str] = {}
        self._out_of_time = False
        self._blind: str | None = None

    async def scrape(self, seconds: float) -> Exposition:
        """Return the exposition of a running or a new pass, after at most this time and a grace period."""
        # A scraper with more time extends the pass of a scraper with less, so that no view is left out for lack of
        # time. If it is too late for that, the next pass begins.
        if (
            self._running is None
            or self._running.done()
            or self._deadline is None
            or not self._deadline.put_off(seconds)
        ):
            self._deadline = Deadline(seconds, longest=self._longest)
            self._running = asyncio.create_task(self._pass(self._deadline), name="scrape")
        running = self._running
        # asyncio.wait, because a scraper that disconnects must not cancel the pass of other scrapers.
        await asyncio.wait({running}, timeout=seconds + GRACE_SECONDS)
        if running.done() and not running.cancelled():
            return running.result()
        return compose_blind(process=self._families(), seconds=seconds)

    async def fault(self) -> str | None:
        """Return why the database cannot be read, or None. During a pass, return the result of the last check."""
        if not self._busy.locked():
            try:
                async with asyncio.timeout(PROBE_SECONDS), self._busy:
                    await self._link.begin("select 1")
                self._blind = None
            except (*UNAVAILABLE, asyncpg.PostgresError) as error:
                self._lose_sight(error)
        return self._blind

    async def close(self) -> None:
        """Cancel the running pass and close the connection. Its scrapers get an exposition without views."""
        if self._running is not None:
            self._running.cancel()
            await asyncio.wait({self._running})
        self._link.drop()

    async def _pass(self, deadline: Deadline) -> Exposition:
        started = time.perf_counter()
        process = self._families()
        try:
            async with deadline.enforce(grace=GRACE_SECONDS / 2), self._busy:
                readings = await read_views(
                    self._link, limits=self._limits, deadline=deadline, cost=self._cost, taken=names_of(process)
                )
        except (*UNAVAILABLE, asyncpg.PostgresError) as error:
            self._lose_sight(error)
            self._process.counters["errors"] += 1
            return compose_blind(process=process, seconds=time.perf_counter() - started)
        took = time.perf_counter() - started
        rows = sum(len(reading.rows) for reading in readings if not isinstance(reading.rows, ViewRefusal))
        work = partial(compose, readings, process=process, seconds=took, max_rows=self._limits.max_rows)
        exposition = await offload(rows, work)
        # A view that was not read keeps its cost. Otherwise slow views would be first in the next pass.
        self._cost = {
            reading.view.name: self._cost.get(reading.view.name, 0.0) if reading.seconds is None else reading.seconds
            for reading in readings
        }
        self._blind = None
        self._tell_refused(exposition)
        self._note_pass(took, rows)
        return exposition

    def _families(self) -> list[Metric]:
        return list(self._process.metrics.registry.collect())

    def _note_pass(self, seconds: float, rows: int) -> None:
        self._process.metrics.processing("scrape").observe(seconds)
        self._process.counters["passes"] += 1
        self._process.counters["rows"] += rows
        self._process.last_pass_at = datetime.now(UTC)

    def _lose_sight(self, error: BaseException) -> None:
        self._link.drop()
        reason = f"{type(error).__name__}: {error}".rstrip(": ")
        if reason != self._blind:
            log.warning("the database cannot be read", extra={"reason": reason})
        self._blind = reason

    def _tell_refused(self, exposition: Exposition) -> None:
        """Log the changes since the last pass. A lasting fault is logged once, and a gauge shows it until it ends.

        The state of unread views is unknown. One scraper with a short time-out can leave all views unread.
        """
        late = {view for view, reason in exposition.refused.items() if reason == OUT_OF_TIME.reason}
        refused = {
            view: reason if view not in late else self._refused[view]
            for view, reason in exposition.refused.items()
            if view not in late or view in self._refused
        }
        for view, reason in refused.items():
            if self._refused.get(view) != reason:
                log.warning("view left out", extra={"view": view, "reason": reason})
        for view in self._refused.keys() - refused.keys():
            log.info("view served again, or gone", extra={"view": view})
        self._refused = refused
        if late and not self._out_of_time:
            log.warning("views left out", extra={"views": len(late), "reason": OUT_OF_TIME.reason})
        self._out_of_time = bool(late)
