"""Sends one leased job and returns a result in every case."""

import asyncio
import logging
import time
from datetime import UTC, datetime

import httpx
from prometheus_client import Histogram
from pydantic import ValidationError

from services.delivery_worker import channels
from services.delivery_worker.channels.outcome import Limited, Outcome, Refused, Retry, Unknown
from services.delivery_worker.job import Job, Result
from services.delivery_worker.notification import Notification
from services.shared import tracing
from services.shared.secret_box import KeyRing, NotOpened, UnknownKey

log = logging.getLogger(__name__)


class Sender:
    """Sends jobs of all channels through one HTTP client."""

    def __init__(self, client: httpx.AsyncClient, keys: KeyRing, *, allow_private: bool, duration: Histogram) -> None:
        self._client = client
        self._keys = keys
        self._allow_private = allow_private
        self._duration = duration

    async def send(self, job: Job) -> Result:
        """Make one attempt. Cancellation has the outcome Unknown, because the request may have arrived."""
        started_at = datetime.now(UTC)
        started = time.perf_counter()
        with tracing.use(job.attempt_context()) as context:
            outcome: Outcome
            try:
                outcome = await self._attempt(job, started_at)
            except asyncio.CancelledError:
                outcome = Unknown("canceled during the request; whether it arrived is unknown")
            except Exception as error:  # noqa: BLE001  # one job must not end the others
                outcome = Retry(f"internal error: {type(error).__name__}")
                # Neither message nor traceback: both may hold secrets of the request.
                log.error("send failed: %s", _place(error), extra={"job_id": job.job_id})  # noqa: TRY400
        seconds = time.perf_counter() - started
        self._duration.observe(seconds)
        return Result(job, outcome, context, started_at, seconds * 1000)

    async def _attempt(self, job: Job, sent_at: datetime) -> Outcome:
        try:
            notification = Notification.model_validate(job.payload)
        except ValidationError as error:
            return Refused(f"the notification is not valid: {channels.faults(error)}")
        try:
            config = self._keys.open_config(job.config, tenant_id=job.tenant_id, channel_id=job.channel_id)
        except UnknownKey as fault:
            # Another worker may have the key, or this one may get it: the job keeps its place and its attempts.
            return Limited(f"the channel's secrets cannot be opened: {fault}")
        except NotOpened as fault:
            return Refused(f"the channel's secrets cannot be opened: {fault}")
        return await channels.send(
            job.channel_kind,
            self._client,
            config,
            notification,
            idempotency_key=str(job.idempotency_key),
            sent_at=sent_at,
            allow_private=self._allow_private,
        )


def _place(error: BaseException) -> str:
    """Return the type of the error and the line that raised it."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    where = f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}" if trace is not None else "nowhere"
    return f"{type(error).__name__} at {where}"
