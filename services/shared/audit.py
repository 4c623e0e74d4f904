"""AuditLogger: the way into the audit trail for what only Python knows, mainly who was let in and who was not."""

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
    read_key,
)
from services.shared.audit_writer.gaps import Keep, Losses
from services.shared.audit_writer.journal import Journal, Store, call, copy
from services.shared.audit_writer.keeper import Keeper
from services.shared.audit_writer.line import make_line
from services.shared.audit_writer.metrics import AuditCollector, Numbers, make_wait_histogram
from services.shared.audit_writer.spool import Spool
from services.shared.settings import AuditSettings

__all__ = ["AuditBlocked", "AuditEvent", "AuditLogger", "Facts", "device_account", "open_audit_logger"]

log = logging.getLogger(__name__)

# COPY of 5,000 rows costs a fifth less a row than of 1,000; a batch that fails costs more the longer it is.
COPY_BATCH = 5000
CALL_BATCH = 1000
# One for each lane, one for what the keeper stores.
CONNECTIONS = 4

TELEMETRY: Final = frozenset({"device.readings_accepted", "device.readings_refused"})
"""The types of class may, as audit.event_types has them: buffered, and lost when the buffer is full."""


class AuditBlocked(Exception):
    """The event cannot be made durable: the database does not answer in time and the spool takes nothing."""


class AuditLogger:
    """Takes events and stores each exactly once.

    An event of class must is kept in the database, or on the local disk while that is away; one of class may waits in
    a bounded buffer. Refused logins go through audit.record_auth_failures, everything else by COPY, each kind over a
    buffer and a connection of its own. The pool should be nobody else's, as open_audit_logger makes it: then no flood
    of logins can take a connection from the requests.
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
        """Begin to store; what was logged before is kept."""
        for lane in self._lanes:
            lane.start()
        self._keeper.start()

    async def stop(self, *, seconds: float = 5.0) -> int:
        """Store what is left, or spool it; returns how many events found no place in that time, and logs it."""
        if self._is_stopped:
            return 0
        self._is_stopped = True
        await self._keeper.stop(seconds=1.0)
        await self._keeper.tell(everything=True)
        # With the database away, what is left is the spool's: no reason to wait.
        seconds = min(seconds, 0.5) if self._journal.is_away else seconds
        lost = sum(await asyncio.gather(*(self._stop_lane(lane, seconds) for lane in self._lanes)))
        await self._keeper.tell()
        await self._spool.close()
        return lost

    @property
    def waiting(self) -> int:
        """Events that are not known to be durable yet."""
        return sum(map(len, self._lanes))

    @property
    def is_blocked(self) -> bool:
        """Whether the last event found neither the database nor the spool, and blocked means denied."""
        return self._denies and self._journal.is_blocked

    async def record(self, event: AuditEvent, *, read: str | None = None) -> bool:
        """Return when the event is durable, in the database or on the local disk; False when it has no row of its own.

        Raises AuditBlocked when it is neither in time and PULSE_AUDIT_WHEN_BLOCKED is deny. A refused login that is
        one of a flood is counted and not waited for, and so is a repeated read. read: the kind of a successful read.
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
        """Take an event without waiting, from the event loop's thread; False when its buffer is full and it is lost."""
        if read is not None and self._is_repeated(event, read):
            return True
        if event.event_type in REFUSALS:
            return not self._flood.admits(event) or self._put(self._refusals, event)
        return self._put(self._telemetry if event.event_type in TELEMETRY else self._events, event)

    def device_rejected(self, *, reasons: Mapping[str, int], **facts: Unpack[Facts]) -> bool:
        """Log that readings were refused before they reached the database; reasons: how many for which."""
        return self.log(self.auth.device_rejected(reasons=reasons, **facts))

    @property
    def _lanes(self) -> tuple[Lane, Lane, Lane]:
        return self._events, self._refusals, self._telemetry

    def _is_repeated(self, event: AuditEvent, kind: str) -> bool:
        """Count a read that has no row of its own. While nothing can be stored none is: each is to wait and fail."""
        return not self.is_blocked and not self._reads.admits(event, kind)

    def _put(self, lane: Lane, event: AuditEvent) -> bool:
        return lane.put(make_line(event, self._service)) is not None

    async def _stop_lane(self, lane: Lane, seconds: float) -> int:
        left = await lane.stop(seconds=seconds)
        if left and await self._spool.append(left):
            lane.give_away(len(left))
            return 0
        if left:
            # They stay in the ledger: the next process tells that they are lost.
            lane.dropped += len(left)
            log.error("audit events lost at stop", extra={"buffer": lane.name, "lost": len(left)})
        return len(left)

    def _numbers(self) -> Numbers:
        return Numbers(
            spool_usable=self._spool.is_usable,
            spool_bytes=self._spool.size,
            spool_records=self._spool.records,
            spooled=self._spool.spooled,
            drained=self._drain.drained,
            blocked=self._blocked,
            aggregated=self._flood.aggregated + self._reads.aggregated,
            gaps=self._losses.reported + self._drain.gaps,
        )


def _make_pseudonyms(settings: AuditSettings) -> Pseudonyms:
    given = settings.audit_pseudonym_key
    key = given.get_secret_value().encode() if given else read_key(settings.audit_spool_dir.parent / KEY_FILE)
    return Pseudonyms(key)


@asynccontextmanager
async def open_audit_logger(settings: AuditSettings, *, registry: CollectorRegistry) -> AsyncIterator[AuditLogger]:
    """An AuditLogger over a pool of its own, opened at the first event; the database may be away."""
    pool = await db.open_pool(settings.model_copy(update={"pool_min_size": 0, "pool_max_size": CONNECTIONS}))
    spool = Spool(settings.audit_spool_dir, service=settings.service, limit=settings.audit_spool_bytes)
    logger = AuditLogger(pool, settings=settings, registry=registry, spool=spool)
    await logger.start()
    try:
        yield logger
    finally:
        await logger.stop()
        pool.terminate()
