"""A leased notification job, and how an attempt at it ended."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeAlias
from uuid import UUID

from services.delivery_worker.channels.outcome import Delivered, Gone, Limited, Outcome, Refused, Retry, Unknown
from services.shared.tracing import TraceContext, continued, parse_trace_id, span_id_of, start

Key: TypeAlias = tuple[int, int]
"""A job and the lease under which it is held."""


@dataclass(frozen=True, slots=True)
class Job:
    """One row of delivery.claim. attempts counts this one; config holds the channel's secrets."""

    tenant_id: str
    job_id: int
    lease_epoch: int
    attempts: int
    max_attempts: int
    alert_id: int
    channel_id: int
    channel_name: str
    channel_kind: str
    config: Mapping[str, Any] = field(repr=False)
    kind: str
    idempotency_key: UUID
    payload: Mapping[str, Any] = field(repr=False)
    trace_id: str | None

    @property
    def key(self) -> Key:
        """What tells this lease from every other."""
        return (self.job_id, self.lease_epoch)

    def attempt_context(self) -> TraceContext:
        """The step of the job's trace that this attempt is; of a new trace when the job has none."""
        known = parse_trace_id(self.trace_id)
        context = start() if known is None else continued(known)
        return context._replace(
            # As delivery_attempts numbers them: attempts starts anew when a job is redriven.
            span_id=span_id_of(context.trace_id, "attempt", f"{self.job_id}:{self.lease_epoch}"),
            parent_span_id=span_id_of(context.trace_id, "job", self.job_id),
            is_call=True,
        )


@dataclass(frozen=True, slots=True)
class Result:
    """An attempt that ended, not recorded yet. context: the trace the request was sent with."""

    job: Job
    outcome: Outcome
    context: TraceContext
    started_at: datetime
    duration_ms: float

    @property
    def name(self) -> str:
        """The outcome as delivery_attempts stores it."""
        match self.outcome:
            case Delivered():
                return "delivered"
            case Retry():
                return "retry"
            case Limited():
                return "limited"
            case Refused():
                return "refused"
            case Gone():
                return "gone"
            case Unknown():
                return "unknown"

    @property
    def status_code(self) -> int | None:
        """HTTP status, when there was an answer."""
        return self.outcome.status_code

    @property
    def reason(self) -> str | None:
        """What went wrong, without secrets."""
        return None if isinstance(self.outcome, Delivered) else self.outcome.reason

    @property
    def retry_after_seconds(self) -> float | None:
        """The pause the receiver asked for."""
        return self.outcome.retry_after_seconds if isinstance(self.outcome, Retry | Limited) else None
