"""One alert and all that happened to it: GET /api/v1/alerts/{alert_id}."""

from datetime import datetime
from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel
from sqlalchemy import BigInteger, Column, select, table

from services.ui_iot.backend import Api
from services.ui_iot.fields import PathId, shown
from services.ui_iot.guard import READERS, GuardedRoute, allow
from services.ui_iot.openapi import problems
from services.ui_iot.principal import Caller
from services.ui_iot.problems import NotFound
from services.ui_iot.routes.alerts import ALERTS, SHOWN, Alert
from services.ui_iot.selects import fetch

router = APIRouter(prefix="/api/v1/alerts", tags=["alerts"], route_class=GuardedRoute)

# An alert that flaps for weeks has more; the trace and the audit trail hold them all.
MOST_EVENTS = 200

_EVENTS = table(
    "alert_events",
    Column("alert_id", BigInteger),
    Column("event_id", BigInteger),
    *(
        Column(name)
        for name in ("kind", "occurred_at", "actor", "message", "value", "channel_id", "step_number", "trace_id")
    ),
    schema="api",
)
_SUPPRESSIONS = table(
    "suppressions",
    Column("alert_id", BigInteger),
    Column("suppression_id", BigInteger),
    *(Column(name) for name in ("event_id", "channel_id", "reason", "recorded_at")),
    schema="api",
)
_EVENT_SHOWN: dict[str, Any] = {
    "event_id": 77,
    "kind": "opened",
    "occurred_at": "2026-01-05T12:00:00Z",
    "actor": None,
    "message": None,
    "value": 81.5,
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


class AlertEvent(BaseModel):
    """Something that happened to an alert."""

    model_config = shown(**_EVENT_SHOWN)
    event_id: int
    kind: str
    occurred_at: datetime
    actor: str | None
    message: str | None
    """One sentence about the event; null when the alert's message says all."""
    value: float | None
    channel_id: int | None
    step_number: int | None
    trace_id: str | None


class Suppression(BaseModel):
    """Why an event of the alert told nobody, or not this channel."""

    model_config = shown(**_SUPPRESSION_SHOWN)
    event_id: int
    channel_id: int | None
    reason: str
    recorded_at: datetime


class AlertStory(Alert):
    """An alert, what happened to it and why who was not told."""

    model_config = shown(**SHOWN, events=[_EVENT_SHOWN], suppressions=[_SUPPRESSION_SHOWN])
    events: list[AlertEvent]
    suppressions: list[Suppression]


@router.get("/{alert_id}", response_model=AlertStory, responses=problems(404), openapi_extra=allow(READERS))
async def get_alert(api: Api, caller: Caller, alert_id: PathId) -> dict[str, Any]:
    """Show one alert, what happened to it and why who was not told."""
    async with api.reading(caller) as connection:
        alerts = await fetch(connection, select(ALERTS).where(ALERTS.c.alert_id == alert_id))
        if not alerts:
            raise NotFound(f"There is no alert {alert_id}.")
        events = select(_EVENTS).where(_EVENTS.c.alert_id == alert_id).order_by(_EVENTS.c.event_id)
        suppressions = (
            select(_SUPPRESSIONS).where(_SUPPRESSIONS.c.alert_id == alert_id).order_by(_SUPPRESSIONS.c.suppression_id)
        )
        return {
            **alerts[0],
            "events": await fetch(connection, events.limit(MOST_EVENTS)),
            "suppressions": await fetch(connection, suppressions.limit(MOST_EVENTS)),
        }
