"""AuditLogger, which writes the events that only Python knows to the audit trail, mainly those of authentication.

The parts are in services/shared/audit_writer.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Final, Unpack

from prometheus_client import CollectorRegistry

from services.shared import db
from services.shared.audit_writer.aggregation import Flood, Reads
from services.shared.audit_writer.buffer import Lane
from services.shared.audit_writer.drain import Drain
from services.shared.audit_writer.event import (
    KEY_FILE,
    REFUSALS,
    AuditEvent,
    AuthEvents,
    Facts,
    Pseudonyms,
    device_account,
    new_event_id,
    read_key,
)
from services.shared.audit_writer.gaps import Keep, Losses
from services.shared.audit_writer.journal import Journal, Store, call, copy
from services.shared.audit_writer.keeper import Keeper
from services.shared.audit_writer.line import make_line
from services.shared.audit_writer.metrics import AuditCollector, make_wait_histogram
from services.shared.audit_writer.spool import Spool
from services.shared.settings import AuditSettings

__all__ = [
    "AuditBlocked",
    "AuditEvent",
    "AuditLogger",
    "Facts",
    "device_account",
    "new_event_id",
    "open_audit_logger",
]

log = logging.getLogger(__name__)

# COPY of 5,000 rows costs a fifth less per row than COPY of 1,000. A failed batch costs more the longer it is.
COPY_BATCH = 5000
CALL_BATCH = 1000
# One for each lane and one for the keeper.
CONNECTIONS = 4

TELEMETRY: Final = frozenset({"device.readings_accepted", "device.readings_refused"})
"""Event types of class `may` in audit.event_types: they are buffered, and lost if the buffer is full."""


class AuditBlocked(Exception):
    """Raised if an event cannot be made durable: the database is away and the spool is full or fails."""


class AuditLogger:
    """Stores each event exactly once.

    An event of class `must` is kept in the database, or on the local disk while the database is away. An event of class
    `may` waits in a bounded buffer. Refused logins are stored by audit.record_auth_failures, all other events by COPY.
    Each kind has its own buffer and connection. open_audit_logger gives the logger its own pool, so that a flood of
    logins takes no connection from the requests.
    """

    def __init__(self, pool: db.Pool, *, settings: AuditSettings, registry: CollectorRegistry, spool: Spool) -> None:
        self._settings = settings
        self._service = settings.service
        self._spool = spool
        self._denies = settings.audit_when_blocked == "deny"
        self._blocked = 0
        self._is_stopped = False
        self.auth = AuthEvents(_make_pseudonyms(settings).of)
        self._journal = Journal(spool, database_seconds=settings.audit_database_seconds, on_away=self._wake)
        self._losses = Losses(self._service, spool.ledger.accounts["lost"], on_loss=self._wake)
        self._flood = Flood(
            rows=settings.audit_flood_rows_per_window,
            seconds=settings.audit_flood_window_seconds,
            service=self._service,
            account=spool.ledger.accounts["aggregated"],
            on_due=self._wake,
        )
        self._reads = self._make_reads()
        copies, calls, readings = Store(pool, copy), Store(pool, call), Store(pool, copy)
        keep, keep_refusals = self._journal.through(copies), self._journal.through(calls)
        self._events = self._make_lane("events", keep, COPY_BATCH)
        self._refusals = self._make_lane("auth_failures", keep_refusals, CALL_BATCH)
        self._telemetry = self._make_lane("telemetry", readings.write, COPY_BATCH)
        self._drain = Drain(spool, self._journal, Store(pool, copy), service=self._service)
        windows = {self._flood: keep_refusals, self._reads: keep}
        self._keeper = Keeper(self._drain, windows=windows, losses=self._losses, events=keep)
        stores = {self._events: copies, self._refusals: calls, self._telemetry: readings}
        registry.register(AuditCollector(stores, self._numbers))
        self._wait_histogram = make_wait_histogram(registry)

    def _make_reads(self) -> Reads:
        return Reads(
            rows=self._settings.audit_read_rows_per_window,
            seconds=self._settings.audit_read_window_seconds,
            service=self._service,
            account=self._spool.ledger.accounts["reads"],
            on_due=self._wake,
        )

    def _make_lane(self, name: str, keep: Keep, batch_size: int) -> Lane:
        account = self._spool.ledger.accounts[name]
        limit = self._settings.audit_buffer_size
        return Lane(name, keep, limit=limit, batch_size=batch_size, account=account, losses=self._losses)

    def _wake(self) -> None:
        self._keeper.wake()

    async def start(self) -> None:
        """Start the writers; events logged before are kept."""
        for lane in self._lanes:
            lane.start()
        self._keeper.start()

    async def stop(self, *, seconds: float = 5.0) -> int:
        """Store or spool the remaining events; return and log the number that could not be kept in that time."""
        if self._is_stopped:
            return 0
        self._is_stopped = True
        await self._keeper.stop(seconds=1.0)
        await self._keeper.write_due(everything=True)
        # While the database is away, the rest goes to the spool and needs no wait.
        seconds = min(seconds, 0.5) if self._journal.is_away else seconds
        lost = sum(await asyncio.gather(*(self._stop_lane(lane, seconds) for lane in self._lanes)))
        await self._keeper.write_due()
        await self._spool.close()
        return lost

    @property
    def waiting(self) -> int:
        """Number of events not known to be durable yet."""
        return sum(map(len, self._lanes))

    @property
    def is_blocked(self) -> bool:
        """True if the last event could be stored nowhere and PULSE_AUDIT_WHEN_BLOCKED is deny."""
        return self._denies and self._journal.is_blocked

    async def record(self, event: AuditEvent, *, read: str | None = None) -> bool:
        """Wait until the event is durable in the database or on the local disk; return False if it was aggregated.

        An event is aggregated if it is a repeated read or a refused login in a flood. If the event is not durable in
        time, raise AuditBlocked, or return False where PULSE_AUDIT_WHEN_BLOCKED is allow. read: kind of a successful
        read.
        """
        started = time.perf_counter()
        if read is not None and self._is_repeated(event, read):
            return False
        is_refusal = event.event_type in REFUSALS
        if is_refusal and not self._flood.admits(event):
            return False
        lane = self._refusals if is_refusal else self._events
        batch = lane.put(make_line(event, self._service))
        kept = batch is not None and await batch.wait(self._journal.longest_seconds)
        self._wait_histogram.observe(time.perf_counter() - started)
        if not kept:
            self._blocked += 1
            if self._denies:
                raise AuditBlocked
        return kept

    def log(self, event: AuditEvent, *, read: str | None = None) -> bool:
        """Take an event without waiting, on the event loop; return False if its buffer is full and it is lost."""
        if read is not None and self._is_repeated(event, read):
            return True
        if event.event_type in REFUSALS:
            return not self._flood.admits(event) or self._put(self._refusals, event)
        return self._put(self._telemetry if event.event_type in TELEMETRY else self._events, event)

    def device_rejected(self, *, reasons: Mapping[str, int], **facts: Unpack[Facts]) -> bool:
        """Log that readings were refused before they reached the database. reasons: count by reason."""
        return self.log(self.auth.device_rejected(reasons=reasons, **facts))

    @property
    def _lanes(self) -> tuple[Lane, Lane, Lane]:
        return self._events, self._refusals, self._telemetry

    def _is_repeated(self, event: AuditEvent, kind: str) -> bool:
        """Count a repeated read. While nothing can be stored, no read is one: each must wait and fail."""
        return not self.is_blocked and not self._reads.admits(event, kind)

    def _put(self, lane: Lane, event: AuditEvent) -> bool:
        return lane.put(make_line(event, self._service)) is not None

    async def _stop_lane(self, lane: Lane, seconds: float) -> int:
        left = await lane.stop(seconds=seconds)
        if left and await self._spool.append(left):
            lane.give_away(len(left))
            return 0
        if left:
            # They stay in the ledger, from which the next process reports their loss.
            lane.dropped += len(left)
            log.error("audit events lost at stop", extra={"buffer": lane.name, "lost": len(left)})
        return len(left)

    def _numbers(self) -> dict[str, float]:
        return {
            "pulse_audit_spool_usable": self._spool.is_usable,
            "pulse_audit_spool_bytes": self._spool.size,
            "pulse_audit_spool_records": self._spool.records,
            "pulse_audit_events_spooled_total": self._spool.spooled,
            "pulse_audit_events_drained_total": self._drain.drained,
            "pulse_audit_events_blocked_total": self._blocked,
            "pulse_audit_events_aggregated_total": self._flood.aggregated + self._reads.aggregated,
            "pulse_audit_gaps_total": self._losses.reported + self._drain.gaps,
        }


def _make_pseudonyms(settings: AuditSettings) -> Pseudonyms:
    given = settings.audit_pseudonym_key
    key = given.get_secret_value().encode() if given else read_key(settings.audit_spool_dir.parent / KEY_FILE)
    return Pseudonyms(key)


@asynccontextmanager
async def open_audit_logger(settings: AuditSettings, *, registry: CollectorRegistry) -> AsyncIterator[AuditLogger]:
    """Run an AuditLogger over its own pool, which connects at the first event; the database may be away."""
    pool = await db.open_pool(settings.model_copy(update={"pool_min_size": 0, "pool_max_size": CONNECTIONS}))
    spool = Spool(settings.audit_spool_dir, service=settings.service, limit=settings.audit_spool_bytes)
    logger = AuditLogger(pool, settings=settings, registry=registry, spool=spool)
    await logger.start()
    try:
        yield logger
    finally:
        await logger.stop()
        pool.terminate()
