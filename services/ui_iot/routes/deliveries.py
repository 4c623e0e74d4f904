"""Deliveries: /api/v1/deliveries."""

from datetime import datetime
from functools import partial
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Query
from pydantic import BaseModel
from sqlalchemy import select

from services.shared.db import Connection
from services.ui_iot.auth.guard import ADMINS, READERS, GuardedRoute, allow
from services.ui_iot.auth.request_context import Caller
from services.ui_iot.backend import Api
from services.ui_iot.openapi import problems
from services.ui_iot.resources.change import Acting
from services.ui_iot.resources.entity_tags import Versioned
from services.ui_iot.resources.fields import PathId, QueryId, TraceId, shown
from services.ui_iot.resources.paging import PageQuery
from services.ui_iot.resources.resource import Resource
from services.ui_iot.resources.views import api_view, fetch

router = APIRouter(prefix="/api/v1/deliveries", tags=["deliveries"], route_class=GuardedRoute)

_SHOWN: dict[str, Any] = {
    "job_id": 9,
    "event_id": 77,
    "alert_id": 42,
    "channel_id": 3,
    "channel_name": "On call",
    "kind": "opened",
    "state": "delivered",
    "run_at": "2026-01-05T12:00:00Z",
    "paused_until": None,
    "paused_because": None,
    "attempts": 1,
    "max_attempts": 8,
    "idempotency_key": "0190b5a2-7c3e-4d7a-9f5b-0c8f3d2a1b4c",
    "created_at": "2026-01-05T12:00:00Z",
    "finished_at": "2026-01-05T12:00:00.2Z",
    "dead_reason": None,
    "last_error": None,
    "route_id": 5,
    "trace_id": "0af7651916cd43dd8448eb211c80319c",
}
_ATTEMPT_SHOWN: dict[str, Any] = {
    "attempt": 1,
    "outcome": "delivered",
    "status_code": 200,
    "error": None,
    "started_at": "2026-01-05T12:00:00.1Z",
    "finished_at": "2026-01-05T12:00:00.2Z",
    "duration_ms": 93.2,
}


class Delivery(Versioned):
    """A notification: one alert event for one channel."""

    model_config = shown(**_SHOWN)
    version = ("state", "run_at", "attempts", "finished_at")
    job_id: int
    event_id: int
    alert_id: int
    channel_id: int
    channel_name: str | None
    """Null if the channel was deleted."""
    kind: str
    state: str
    run_at: datetime
    """Earliest time of the next attempt."""
    paused_until: datetime | None
    """End of the channel's pause, if the notification waits for it; otherwise null."""
    paused_because: str | None
    attempts: int
    max_attempts: int
    idempotency_key: UUID
    """Sent with every attempt, so that the receiver can ignore a repeat."""
    created_at: datetime
    finished_at: datetime | None
    dead_reason: str | None
    """The reason for giving up: refused, exhausted, limited, gone, channel_disabled, channel_deleted or superseded."""
    last_error: str | None
    route_id: int | None
    """The route that selected the channel; null for the end of an alert and for an escalation."""
    trace_id: str | None


class Attempt(BaseModel):
    """An attempt to deliver. Its outcome is `unknown` if the worker died during it."""

    model_config = shown(**_ATTEMPT_SHOWN)
    attempt: int
    outcome: str
    status_code: int | None
    error: str | None
    started_at: datetime | None
    finished_at: datetime
    duration_ms: float | None


class DeliveryWithAttempts(Delivery):
    """A notification with all its attempts."""

    model_config = shown(**_SHOWN, tries=[_ATTEMPT_SHOWN])
    tries: list[Attempt]


_ATTEMPTS = api_view("delivery_attempts", Attempt, "job_id", "attempt_id")
_RESOURCE = Resource("delivery", Delivery, view="deliveries", key="job_id", newest_first=True)


class DeliveryQuery(PageQuery):
    """Filters of the list of deliveries."""

    state: Literal["pending", "leased", "delivered", "dead"] | None = None
    """Only deliveries in this state."""
    channel_id: QueryId | None = None
    """Only deliveries to this channel."""
    alert_id: QueryId | None = None
    """Only deliveries about this alert."""
    trace_id: TraceId | None = None
    """Only deliveries caused by the request with this trace id."""


@router.get("", response_model=_RESOURCE.page, responses=problems(), openapi_extra=allow(READERS))
async def list_deliveries(api: Api, caller: Caller, query: Annotated[DeliveryQuery, Query()]) -> dict[str, Any]:
    """List notifications, newest first."""
    return await api.page(caller, _RESOURCE, query)


@router.get("/{job_id}", response_model=DeliveryWithAttempts, responses=problems(404), openapi_extra=allow(READERS))
async def get_delivery(api: Api, caller: Caller, job_id: PathId) -> dict[str, Any]:
    """Return a notification with all its attempts."""
    return await api.read(caller, partial(_show, job_id))


@router.post(
    "/{job_id}/redrive",
    response_model=DeliveryWithAttempts,
    responses=problems(404, 409),
    openapi_extra=allow(ADMINS),
)
async def redrive_delivery(change: Acting, job_id: PathId) -> dict[str, Any]:
    """Queue a dead notification again, with its full number of attempts.

    If the opening of an alert is queued again, the dead notification of its end is queued as well.
    """
    return await change.apply(_RESOURCE, job_id, "select delivery.redrive($1)", show=partial(_show, job_id))


async def _show(job_id: int, connection: Connection) -> dict[str, Any]:
    job = await _RESOURCE.get(connection, job_id)
    tries = select(_ATTEMPTS).where(_ATTEMPTS.c.job_id == job_id).order_by(_ATTEMPTS.c.attempt_id)
    return {**job, "tries": await fetch(connection, tries)}
