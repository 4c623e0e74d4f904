"""Alerts: /api/v1/alerts."""

from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from services.ui_iot.auth.guard import OPERATORS, READERS, GuardedRoute, allow
from services.ui_iot.auth.request_context import Caller
from services.ui_iot.backend import Api
from services.ui_iot.openapi import problems
from services.ui_iot.resources.change import Acting
from services.ui_iot.resources.entity_tags import Versioned
from services.ui_iot.resources.fields import (
    DeviceId,
    Metric,
    Moment,
    Name,
    PathId,
    QueryId,
    Severity,
    TraceId,
    example,
    shown,
)
from services.ui_iot.resources.paging import PageQuery
from services.ui_iot.resources.resource import Resource

router = APIRouter(prefix="/api/v1/alerts", tags=["alerts"], route_class=GuardedRoute)

SHOWN: dict[str, Any] = {
    "alert_id": 42,
    "fingerprint": "rule:7:boiler-1",
    "rule_id": 7,
    "rule_name": "Boiler too hot",
    "device_id": "boiler-1",
    "device_name": "Boiler 1",
    "metric": "temperature",
    "severity": "critical",
    "status": "open",
    "message": "temperature of boiler-1 is 81.5 (> 80)",
    "value": 81.5,
    "opened_at": "2026-01-05T12:00:00Z",
    "acknowledged_at": None,
    "acknowledged_by": None,
    "closed_at": None,
    "close_reason": None,
    "silenced_until": None,
    "trace_id": "0af7651916cd43dd8448eb211c80319c",
}


class Alert(Versioned):
    """An alert: a rule's condition that holds for a device, or did."""

    model_config = shown(**SHOWN)
    version = ("severity", "status", "acknowledged_at", "acknowledged_by", "closed_at", "silenced_until")
    alert_id: int
    fingerprint: str
    rule_id: int | None
    rule_name: str
    device_id: str | None
    device_name: str | None
    """The device's name when the alert opened. It stays after the device is deleted."""
    metric: str | None
    severity: str
    status: str
    message: str
    value: float | None
    opened_at: datetime
    acknowledged_at: datetime | None
    acknowledged_by: str | None
    closed_at: datetime | None
    close_reason: str | None
    silenced_until: datetime | None
    trace_id: str | None


RESOURCE = Resource("alert", Alert, view="alerts", key="alert_id", newest_first=True)


class AlertQuery(PageQuery):
    """Filters of the list of alerts."""

    status: Annotated[list[Literal["open", "acknowledged", "closed"]], Field(default_factory=list, max_length=3)]
    """Only alerts in any of these states."""
    severity: Annotated[list[Severity], Field(default_factory=list, max_length=4)]
    """Only alerts with any of these severities."""
    rule_id: QueryId | None = None
    """Only alerts of this rule."""
    device_id: DeviceId | None = None
    """Only alerts of this device."""
    metric: Metric | None = None
    """Only alerts about this metric."""
    trace_id: TraceId | None = None
    """Only alerts opened by the request with this trace id."""
    opened_since: Moment | None = None
    """Only alerts opened at this time or later."""
    opened_until: Moment | None = None
    """Only alerts opened before this time."""


class Closing(BaseModel):
    """The closing of an alert by a person."""

    model_config = example(reason="Valve replaced")
    reason: Name


class Silence(BaseModel):
    """The end of a silence. Null ends it now."""

    model_config = example(until="2026-01-06T08:00:00Z")
    until: Moment | None


@router.get("", response_model=RESOURCE.page, responses=problems(), openapi_extra=allow(READERS))
async def list_alerts(api: Api, caller: Caller, query: Annotated[AlertQuery, Query()]) -> dict[str, Any]:
    """List alerts, newest first."""
    opened_at, conditions = RESOURCE.view.c.opened_at, []
    if query.opened_since is not None:
        conditions.append(opened_at >= query.opened_since)
    if query.opened_until is not None:
        conditions.append(opened_at < query.opened_until)
    return await api.page(caller, RESOURCE, query, *conditions)


@router.post(
    "/{alert_id}/acknowledge", response_model=Alert, responses=problems(404, 409), openapi_extra=allow(OPERATORS)
)
async def acknowledge_alert(change: Acting, alert_id: PathId) -> Any:
    """Acknowledge an alert. Its escalation stops, and the channels that received its opening are notified."""
    return await change.apply(RESOURCE, alert_id, "select evaluator.acknowledge_alert($1)")


@router.post(
    "/{alert_id}/close", response_model=Alert, responses=problems(404, 409, 413), openapi_extra=allow(OPERATORS)
)
async def close_alert(change: Acting, alert_id: PathId, body: Closing) -> Any:
    """Close an alert. The next reading that breaches its rule opens a new one."""
    return await change.apply(RESOURCE, alert_id, "select evaluator.close_alert($1, $2)", body.reason)


@router.post(
    "/{alert_id}/silence", response_model=Alert, responses=problems(404, 409, 413), openapi_extra=allow(OPERATORS)
)
async def silence_alert(change: Acting, alert_id: PathId, body: Silence) -> Any:
    """Silence an alert until a time, at most 30 days ahead.

    No opening, update, acknowledgement or escalation is sent until then, neither of this alert nor of later alerts of
    the same rule and device. `null` ends the silence, even if the alert is closed.
    """
    return await change.apply(RESOURCE, alert_id, "select evaluator.silence_alert($1, $2)", body.until)
