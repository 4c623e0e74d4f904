"""A leased notification job, and the result of an attempt."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeAlias
from uuid import UUID

from services.delivery_worker.channels.outcome import Delivered, Gone, Limited, Outcome, Refused, Retry, Unknown
from services.shared.tracing import TraceContext, continued, parse_trace_id, span_id_of, start

Key: TypeAlias = tuple[int, int]
"""A job id and the epoch of its lease."""


@dataclass(frozen=True, slots=True)
class Job:
    """One row of delivery.claim. attempts includes this attempt. config has the secrets of the channel."""

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
        """The key of this lease."""
        return (self.job_id, self.lease_epoch)

    def attempt_context(self) -> TraceContext:
        """Return the step of this attempt in the trace of the job, or in a new trace if the job has none."""
        known = parse_trace_id(self.trace_id)
        context = start() if known is None else continued(known)
        return context._replace(
            # Numbered as in delivery_attempts: Job.attempts restarts when a job is redriven.
            span_id=span_id_of(context.trace_id, "attempt", f"{self.job_id}:{self.lease_epoch}"),
            parent_span_id=span_id_of(context.trace_id, "job", self.job_id),
            is_call=True,
        )


@dataclass(frozen=True, slots=True)
class Result:
    """A finished attempt that is not recorded yet. context: the trace of its request."""

    job: Job
    outcome: Outcome
    context: TraceContext
    started_at: datetime
    duration_ms: float

    @property
    def name(self) -> str:
        """The outcome, as stored in delivery_attempts."""
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
        """The HTTP status, or None without an answer."""
        return self.outcome.status_code

    @property
    def reason(self) -> str | None:
        """The error without secrets, or None."""
        return None if isinstance(self.outcome, Delivered) else self.outcome.reason

    @property
    def retry_after_seconds(self) -> float | None:
        """The pause that the receiver requested, or None."""
        return self.outcome.retry_after_seconds if isinstance(self.outcome, Retry | Limited) else None
