"""One alert with its history: GET /api/v1/alerts/{alert_id}."""

from datetime import datetime
from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel
from sqlalchemy import select

from services.shared.db import Connection
from services.ui_iot.auth.guard import READERS, GuardedRoute, allow
from services.ui_iot.auth.request_context import Caller
from services.ui_iot.backend import Api
from services.ui_iot.openapi import problems
from services.ui_iot.resources.fields import PathId, shown
from services.ui_iot.resources.views import api_view, fetch
from services.ui_iot.routes.alerts import RESOURCE, SHOWN, Alert

router = APIRouter(prefix="/api/v1/alerts", tags=["alerts"], route_class=GuardedRoute)

# An alert that flaps for weeks has more events. The trace and the audit trail contain all events.
MOST_EVENTS = 200
MOST_DECISIONS = 1000

_EVENT_SHOWN: dict[str, Any] = {
    "event_id": 77,
    "kind": "opened",
    "occurred_at": "2026-01-05T12:00:00Z",
    "actor": None,
    "message": None,
    "value": 81.5,
    "changes": None,
    "channel_id": None,
    "step_number": None,
    "trace_id": "0af7651916cd43dd8448eb211c80319c",
}
_SUPPRESSION_SHOWN: dict[str, Any] = {
    "event_id": 77,
    "channel_id": None,
    "reason": "no_route",
    "recorded_at": "2026-01-05T12:00:00.01Z",
}


_DECISION_SHOWN: dict[str, Any] = {
    "event_id": 77,
    "channel_id": 3,
    "channel_name": "On call",
    "decision": "suppressed",
    "reason": "below_severity",
    "route_id": 5,
    "job_id": None,
    "paused_until": None,
    "last_error": None,
    "decided_at": "2026-01-05T12:00:00.01Z",
}


class AlertEvent(BaseModel):
    """A change of an alert's state."""

    model_config = shown(**_EVENT_SHOWN)
    event_id: int
    kind: str
    occurred_at: datetime
    actor: str | None
    message: str | None
    """A sentence about the event, or null if the alert's message describes it."""
    value: float | None
    changes: int | None
    """For the kind `flapping`, the number of openings and closings that the event represents; otherwise null."""
    channel_id: int | None
    step_number: int | None
    trace_id: str | None


class Suppression(BaseModel):
    """The reason why an event was not sent, to one channel or to any."""

    model_config = shown(**_SUPPRESSION_SHOWN)
    event_id: int
    channel_id: int | None
    reason: str
    recorded_at: datetime


class Decision(BaseModel):
    """The decision about one event and one channel."""

    model_config = shown(**_DECISION_SHOWN)
    event_id: int
    channel_id: int | None
    """Null if no route or escalation policy of the tenant names a channel."""
    channel_name: str | None
    decision: str
    """The state of the notification (`pending`, `leased`, `delivered` or `dead`), or `suppressed`."""
    reason: str | None
    """The reason for suppressing the event or giving up the notification."""
    route_id: int | None
    """The route that selected the channel, or the one that came closest to selecting it."""
    job_id: int | None
    paused_until: datetime | None
    """End of the channel's pause, if the notification waits for it."""
    last_error: str | None
    decided_at: datetime


_EVENTS = api_view("alert_events", AlertEvent, "alert_id")
_SUPPRESSIONS = api_view("suppressions", Suppression, "alert_id", "suppression_id")
_DECISIONS = api_view("decisions", Decision, "alert_id")


class AlertStory(Alert):
    """An alert with its history and with the decision for each event and channel."""

    model_config = shown(**SHOWN, events=[_EVENT_SHOWN], suppressions=[_SUPPRESSION_SHOWN], decisions=[_DECISION_SHOWN])
    events: list[AlertEvent]
    suppressions: list[Suppression]
    """The decisions against sending."""
    decisions: list[Decision]


@router.get("/{alert_id}", response_model=AlertStory, responses=problems(404), openapi_extra=allow(READERS))
async def get_alert(api: Api, caller: Caller, alert_id: PathId) -> dict[str, Any]:
    """Return an alert with its history, its notifications and the reason for each channel without one."""

    async def read(connection: Connection) -> dict[str, Any]:
        alert = await RESOURCE.get(connection, alert_id)
        events = select(_EVENTS).where(_EVENTS.c.alert_id == alert_id).order_by(_EVENTS.c.event_id)
        suppressions = (
            select(_SUPPRESSIONS).where(_SUPPRESSIONS.c.alert_id == alert_id).order_by(_SUPPRESSIONS.c.suppression_id)
        )
        decisions = (
            select(_DECISIONS)
            .where(_DECISIONS.c.alert_id == alert_id)
            .order_by(_DECISIONS.c.event_id, _DECISIONS.c.channel_id)
        )
        return {
            **alert,
            "events": await fetch(connection, events.limit(MOST_EVENTS)),
            "suppressions": await fetch(connection, suppressions.limit(MOST_EVENTS)),
            "decisions": await fetch(connection, decisions.limit(MOST_DECISIONS)),
        }

    return await api.read(caller, read)
