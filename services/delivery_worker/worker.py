"""The delivery of notification jobs: claim under a lease, send, record under the fence.

            ┌───────────── slot free ◀──────────────┐
            ▼                                       │
   wait ─▶ claim ─▶ send (a task a job) ─▶ ledger ─▶ delivered │ dead │ pending again
            │           │                              ▲
            │           └── leases renewed meanwhile   │
            └── worker crashed: the lease expires ─▶ reap

Claiming does not wait for sending, nor recording for the slowest request. A receiver that hangs takes only its slot.
"""

import asyncio
import contextlib
import logging
import os
import socket
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import asyncpg

from services.delivery_worker.job import Job, Key
from services.delivery_worker.ledger import Ledger
from services.delivery_worker.sender import Sender
from services.delivery_worker.slots import Slots
from services.shared import settings as shared_settings
from services.shared.db import UNAVAILABLE, Pool
from services.shared.http_client import Resolver, resolve_name, traced_client
from services.shared.secret_box import KeyRing, protection
from services.shared.server import Process
from services.shared.worker import Loop

log = logging.getLogger(__name__)

_REAPED_AT_ONCE = 1000
# Interval at which a full worker looks for the stop signal.
_STOP_CHECK_SECONDS = 0.1
# Recording takes milliseconds. Without a database, the stop must not wait for it.
_LEDGER_STOP_SECONDS = 2.0


# Starting a request takes the event loop 0.8 ms. Another tenant's job would wait for all that start at once.
_MOST_CLAIMED = 8


class DeliveryWorker:
    """The jobs that one process holds."""

    def __init__(self, process: Process, sender: Sender, slots: Slots, ledger: Ledger) -> None:
        assert isinstance(process.settings, shared_settings.DeliverySettings)
        self._process = process
        self._settings = process.settings
        self._sender = sender
        self._ledger = ledger
        self._name = f"{socket.gethostname()}:{os.getpid()}"
        self._sending: dict[Key, tuple[Job, asyncio.Task[None]]] = {}
        self._slots = slots

    async def claim(self, pool: Pool) -> int:
        """Claim a few jobs for the free slots and start to send. Return the number of claimed jobs."""
        free = await self._free_slots()
        if free == 0:
            return 0
        rows = await pool.fetch(
            "select * from delivery.claim($1, $2, $3, $4, $5)",
            self._name,
            free,
            self._settings.delivery_lease_seconds,
            self._settings.delivery_channel_concurrency,
            _MOST_CLAIMED,
        )
        for row in rows:
            job = Job(**row)
            self._sending[job.key] = (job, asyncio.create_task(self._send(job), name=f"send-{job.job_id}"))
        held = Counter(job.tenant_id for job in self._in_hand())
        self._slots.are_shared = max(held.values(), default=0) >= self._settings.delivery_concurrency // 2
        return len(rows)

    def _in_hand(self) -> list[Job]:
        return [*(job for job, _task in self._sending.values()), *self._ledger.unrecorded()]

    async def reap(self, pool: Pool) -> int:
        """End the expired leases of all workers, and return their number."""
        reaped = await pool.fetchval(
            "select delivery.reap($1, $2, $3)",
            _REAPED_AT_ONCE,
            self._settings.delivery_backoff_seconds,
            self._settings.delivery_backoff_max_seconds,
        )
        if reaped:
            log.warning("leases expired", extra={"jobs": reaped})
        return int(reaped)

    async def _free_slots(self) -> int:
        """Return the number of free slots. Wait for one; return 0 only if the process stops meanwhile.

        A job holds its slot until its outcome is recorded. A crash therefore leaves at most one unknown outcome a slot.
        """
        while not self._process.stopping:
            free = self._settings.delivery_concurrency - len(self._in_hand())
            if free > 0:
                return free
            self._slots.freed.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._slots.freed.wait(), _STOP_CHECK_SECONDS)
        return 0

    async def _send(self, job: Job) -> None:
        self._ledger.record(await self._sender.send(job))
        del self._sending[job.key]

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Record outcomes and renew leases inside the context. At its end, drain requests and record every outcome."""
        self._ledger.start()
        renewal = asyncio.create_task(self._renew_forever(), name="renew")
        try:
            yield
        finally:
            await self._drain()
            await self._ledger.stop(seconds=_LEDGER_STOP_SECONDS)
            renewal.cancel()
            await asyncio.wait([renewal])

    async def _drain(self) -> None:
        tasks = [task for _job, task in self._sending.values()]
        if not tasks:
            return
        _done, late = await asyncio.wait(tasks, timeout=self._settings.delivery_stop_seconds)
        for task in late:
            task.cancel()
        if late:
            log.warning("requests canceled", extra={"jobs": len(late)})
            await asyncio.wait(late)

    async def _renew_forever(self) -> None:
        while True:
            await asyncio.sleep(self._settings.delivery_lease_seconds / 3)
            try:
                await self._renew()
            except (*UNAVAILABLE, asyncpg.PostgresError) as error:
                log.warning("leases not renewed: %s", type(error).__name__)

    async def _renew(self) -> None:
        """Renew the leases of held jobs, and cancel requests whose lease another worker has."""
        jobs = self._in_hand()
        if not jobs:
            return
        assert self._process.pool is not None
        rows = await self._process.pool.fetch(
            "select job_id from delivery.extend($1, $2, $3, $4) as job_id",
            [job.tenant_id for job in jobs],
            [job.job_id for job in jobs],
            [job.lease_epoch for job in jobs],
            self._settings.delivery_lease_seconds,
        )
        kept = {row["job_id"] for row in rows}
        for job in jobs:
            if job.job_id not in kept and job.key in self._sending:
                log.warning("lease lost", extra={"job_id": job.job_id})
                self._sending[job.key][1].cancel()


def _set_within_a_poll(event: asyncio.Event, seconds: float, poll_seconds: float) -> None:
    """Set the event when a job is due, unless the next poll comes first.

    Otherwise a receiver that accepts one request a second would get one at every second poll.
    """
    if seconds <= poll_seconds:
        # A little late, so that the job is due by the clock of the database.
        asyncio.get_running_loop().call_later(max(seconds, 0.0) + 0.01, event.set)


@asynccontextmanager
async def build(process: Process, *, resolve: Resolver = resolve_name) -> AsyncIterator[Sequence[Loop]]:
    """Open the client and the ledger, and yield the loops of the worker."""
    settings = process.settings
    assert isinstance(settings, shared_settings.DeliverySettings)
    allow_private = settings.allow_private_destinations
    keys = KeyRing(settings.secrets_key_file)
    process.facts["channel_secrets"] = lambda: protection(keys.newest)
    if keys.newest is None:
        log.warning("channel secrets are stored as %s", protection(None))
    async with traced_client(
        allow_private=allow_private,
        timeout_seconds=settings.delivery_timeout_seconds,
        resolve=resolve,
        egress=settings.egress,
    ) as client:
        sender = Sender(client, keys, allow_private=allow_private, duration=process.metrics.processing("send"))
        due = asyncio.Event()
        slots = Slots(due)
        ledger = Ledger(
            process,
            slot_freed=slots.free,
            duration=process.metrics.processing("finish"),
            settings=settings,
            due_in=lambda seconds: _set_within_a_poll(due, seconds, settings.poll_seconds),
        )
        worker = DeliveryWorker(process, sender, slots, ledger)
        async with worker.running():
            yield [
                Loop("claim", worker.claim, wake_on="pulse_delivery", poll_seconds=settings.poll_seconds, wake=due),
                Loop("reap", worker.reap, poll_seconds=settings.delivery_reap_seconds),
            ]
