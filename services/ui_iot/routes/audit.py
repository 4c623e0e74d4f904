"""The audit trail of the caller's tenant in pages: /api/v1/audit/events."""

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Query
from pydantic import BaseModel

from services.shared.audit import AuditEvent
from services.ui_iot.audit.trail import AuditFilter, TrailReading, read_place, write_place
from services.ui_iot.auth.guard import AUDITORS, GuardedRoute, allow
from services.ui_iot.auth.principal import Principal
from services.ui_iot.auth.request_context import Caller
from services.ui_iot.backend import Api, Backend
from services.ui_iot.openapi import problems
from services.ui_iot.resources.fields import shown
from services.ui_iot.resources.paging import PageQuery

router = APIRouter(prefix="/api/v1/audit", tags=["audit"], route_class=GuardedRoute)

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
    "block_no": 4711,
}


class AuditEventShown(BaseModel):
    """An audit event."""

    model_config = shown(**_SHOWN)
    event_id: UUID
    timestamp: datetime
    """Time of the event, by the clock of the service that reported it."""
    recorded_at: datetime
    """Time at which the event was stored, by the database's clock."""
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
    block_no: int
    """Number of the sealed block that contains the event."""


class AuditPage(BaseModel):
    """A page of audit events. A short or empty page is the last one only if `next_cursor` is null."""

    model_config = shown(
        items=[_SHOWN], next_cursor=None, tail_cursor="WyJhdWRpdCIsNF0", sealed_at="2026-01-05T12:00:00.4Z"
    )
    items: list[AuditEventShown]
    next_cursor: str | None
    tail_cursor: str
    """Value for `after` of `/api/v1/audit/tail`, to continue after the newest event that this page could show."""
    sealed_at: datetime | None
    """Time of the newest sealed block. If it is old, the sealer has stopped."""


class AuditQuery(AuditFilter, PageQuery):
    """Filters and direction of a list of audit events."""

    order: Literal["newest", "oldest"] = "newest"
    """The end of the sealed order that comes first."""


async def record_read(api: Backend, caller: Principal, query: BaseModel, events: int | None) -> None:
    """Record a read of the trail before its events are shown. events: their number, or None if not known yet."""
    await api.audit.record(
        AuditEvent(
            event_type="audit.read",
            message="audit trail read",
            tenant_id=caller.tenant_id,
            actor_type=caller.actor.type,
            actor_id=caller.actor.id,
            actor_name=caller.actor.name,
            ip_address=caller.ip_address,
            details={
                "filter": query.model_dump(mode="json", exclude_none=True, exclude={"cursor", "after"}),
                "events": events,
            },
        ),
        read=type(query).__name__,
    )


@router.get("/events", response_model=AuditPage, responses=problems(), openapi_extra=allow(AUDITORS))
async def list_audit_events(api: Api, caller: Caller, query: Annotated[AuditQuery, Query()]) -> dict[str, Any]:
    """List the tenant's audit events in their sealed order.

    Only sealed events are listed, so no event can appear later in the middle of the list. An event is sealed about a
    second after it was stored. `sealed_at` is the time of the newest sealed block.

    A request searches for a quarter of a second. Its page may then be short or empty and have a `next_cursor`. Filter
    by trace, entity, event type or time range to find events faster. Each read is recorded as an audit event, and
    repeated reads within a minute share one.
    """
    reading = TrailReading(matching=query.matching(), newest_first=query.order == "newest", limit=query.limit)
    place = None if query.cursor is None else read_place(query.cursor)
    found = await api.read(caller, lambda connection: reading.of_tenant(connection, place))
    await record_read(api, caller, query, len(found.events))
    newest = (query.cursor or write_place(found.end)) if reading.newest_first else write_place(found.place)
    return {
        "items": found.events,
        "next_cursor": None if found.is_last else write_place(found.place),
        "tail_cursor": newest,
        "sealed_at": found.sealed_at,
    }
