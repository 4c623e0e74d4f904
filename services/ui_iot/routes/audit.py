"""The audit trail of the caller's tenant: /api/v1/audit/events."""

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Query, Request
from pydantic import AwareDatetime, BaseModel, Field, IPvAnyAddress
from sqlalchemy import Column, DateTime, Text, Uuid, table

from services.shared.audit import AuditEvent
from services.ui_iot.backend import Api
from services.ui_iot.fields import TraceId, shown
from services.ui_iot.guard import AUDITORS, GuardedRoute, allow
from services.ui_iot.openapi import problems
from services.ui_iot.paging import EVENT, TIME, Order, PageQuery, where_equal
from services.ui_iot.principal import Caller

router = APIRouter(prefix="/api/v1/audit", tags=["audit"], route_class=GuardedRoute)

_TEXTS = (
    *("event_type", "category", "severity", "entity_type", "entity_id", "entity_name", "action", "message"),
    *("source_service", "actor_type", "actor_id", "actor_name", "ip_address", "trace_id"),
)
_EVENTS = table(
    "audit_events",
    Column("event_id", Uuid),
    Column("timestamp", DateTime(timezone=True)),
    Column("recorded_at"),
    *(Column(name, Text) for name in _TEXTS),
    Column("details"),
    Column("duration_ms"),
    schema="api",
)
_ORDER = Order("audit", ((_EVENTS.c.timestamp, TIME), (_EVENTS.c.event_id, EVENT)), descending=True)
_SHOWN: dict[str, Any] = {
    "event_id": "0190b5a2-7c3e-7d7a-9f5b-0c8f3d2a1b4c",
    "timestamp": "2026-01-05T12:00:00Z",
    "recorded_at": "2026-01-05T12:00:00.001Z",
    "event_type": "auth.login_failure",
    "category": "auth",
    "severity": "warning",
    "entity_type": None,
    "entity_id": None,
    "entity_name": None,
    "action": "login_failure",
    "message": "caller turned away: expired",
    "details": {"reason": "expired", "method": "GET", "path": "/api/v1/alerts"},
    "source_service": "ui_iot",
    "actor_type": "user",
    "actor_id": "alice",
    "actor_name": "Alice",
    "ip_address": "198.51.100.7",
    "trace_id": "0af7651916cd43dd8448eb211c80319c",
    "duration_ms": 0.2,
}

Word = Annotated[str, Field(max_length=256, pattern=r"^[^\x00]*$")]


class AuditEventShown(BaseModel):
    """Something that happened."""

    model_config = shown(**_SHOWN)
    event_id: UUID
    timestamp: datetime
    """When it happened, by the clock of who reported it."""
    recorded_at: datetime
    """When it was stored, by the database's clock."""
    event_type: str
    category: str
    severity: str
    entity_type: str | None
    entity_id: str | None
    entity_name: str | None
    action: str
    message: str
    details: dict[str, Any]
    source_service: str
    actor_type: str | None
    actor_id: str | None
    actor_name: str | None
    ip_address: str | None
    trace_id: str | None
    duration_ms: float | None


class AuditPage(BaseModel):
    """A page of audit events."""

    model_config = shown(items=[_SHOWN], next_cursor=None)
    items: list[AuditEventShown]
    next_cursor: str | None


class AuditQuery(PageQuery):
    """Which events. A time bound keeps the look at old months short."""

    event_type: Word | None = None
    """Only events of this type, such as config.rule_updated."""
    category: Literal["auth", "device", "alert", "rule", "delivery", "config", "audit", "system"] | None = None
    """Only events whose type begins with this word."""
    severity: Literal["debug", "info", "warning", "error", "critical"] | None = None
    """Only events of this severity."""
    entity_type: Word | None = None
    """Only events about this kind of thing, such as rule."""
    entity_id: Word | None = None
    """Only events about the thing with this id."""
    actor_type: Literal["user", "device", "service", "anonymous"] | None = None
    """Only what this kind of actor did."""
    actor_id: Word | None = None
    """Only what this actor did."""
    ip_address: IPvAnyAddress | None = None
    """Only what came from this address."""
    trace_id: TraceId | None = None
    """Only what the request with this trace id caused."""
    since: AwareDatetime | None = None
    """Only events at this time or later."""
    until: AwareDatetime | None = None
    """Only events before this time."""


_EQUAL = ("event_type", "category", "severity", "entity_type", "entity_id", "actor_type", "actor_id", "trace_id")


@router.get("/events", response_model=AuditPage, responses=problems(), openapi_extra=allow(AUDITORS))
async def list_audit_events(
    request: Request, api: Api, caller: Caller, query: Annotated[AuditQuery, Query()]
) -> dict[str, Any]:
    """List the tenant's audit events, newest first. Reading them is an audit event too, one for each page."""
    statement = where_equal(_EVENTS, query, *_EQUAL)
    if query.ip_address is not None:
        statement = statement.where(_EVENTS.c.ip_address == str(query.ip_address))
    if query.since is not None:
        statement = statement.where(_EVENTS.c.timestamp >= query.since)
    if query.until is not None:
        statement = statement.where(_EVENTS.c.timestamp < query.until)
    page = await api.page(caller, statement, order=_ORDER, page=query)
    await api.audit.record(
        AuditEvent(
            event_type="audit.read",
            message="audit trail read",
            tenant_id=caller.tenant_id,
            actor_type=caller.actor.type,
            actor_id=caller.actor.id,
            actor_name=caller.actor.name,
            ip_address=request.scope["pulse.client_address"],
            details={
                "filter": query.model_dump(mode="json", exclude_none=True, exclude={"cursor"}),
                "events": len(page["items"]),
            },
        )
    )
    return page
