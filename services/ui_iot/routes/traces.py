"""The story of one trace id: /api/v1/traces/{trace_id}."""

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Path
from pydantic import BaseModel
from sqlalchemy import Column, Text, select, table

from services.shared.db import select as fetch
from services.shared.tracing import parse_trace_id
from services.ui_iot.backend import Api
from services.ui_iot.fields import shown
from services.ui_iot.guard import READERS, GuardedRoute, allow
from services.ui_iot.openapi import problems
from services.ui_iot.principal import Caller
from services.ui_iot.problems import NotFound

router = APIRouter(prefix="/api/v1/traces", tags=["traces"], route_class=GuardedRoute)

# One request of 10,000 readings can open an alert on each device; a person reads the beginning.
MOST_STEPS = 1000

_TIMELINE = table(
    "trace_timeline",
    Column("trace_id", Text),
    *(Column(name) for name in ("at", "source", "service", "entity_type", "entity_id", "what", "details")),
    Column("duration_ms"),
    schema="api",
)
_STEP_SHOWN: dict[str, Any] = {
    "at": "2026-01-05T12:00:00Z",
    "source": "reading",
    "service": "ui_iot",
    "entity_type": "device",
    "entity_id": "boiler-1",
    "what": "temperature is 81.5",
    "details": {"metric": "temperature", "readings": 1},
    "duration_ms": None,
}


class TraceStep(BaseModel):
    """One row that the trace left behind."""

    model_config = shown(**_STEP_SHOWN)
    at: datetime
    source: str
    """reading, alert, alert_event, suppression, job, attempt or audit."""
    service: str
    entity_type: str | None
    entity_id: str | None
    what: str
    details: dict[str, Any] | None
    duration_ms: float | None


class Trace(BaseModel):
    """What one request caused, in order of time."""

    model_config = shown(trace_id="0af7651916cd43dd8448eb211c80319c", truncated=False, steps=[_STEP_SHOWN])
    trace_id: str
    truncated: bool
    """Whether there is more than is shown."""
    steps: list[TraceStep]


@router.get("/{trace_id}", response_model=Trace, responses=problems(404), openapi_extra=allow(READERS))
async def get_trace(
    api: Api,
    caller: Caller,
    trace_id: Annotated[str, Path(max_length=36, description="32 hexadecimal digits, or a UUID.")],
) -> dict[str, Any]:
    """Show what one request caused: readings, alerts, notifications, attempts and audit events, in order of time."""
    canonical = parse_trace_id(trace_id)
    if canonical is None:
        raise NotFound("There is no such trace.")
    columns = [column for column in _TIMELINE.c if column.key != "trace_id"]
    statement = select(*columns).where(_TIMELINE.c.trace_id == canonical).order_by(_TIMELINE.c.at)
    async with api.reading(caller) as connection:
        steps = await fetch(connection, statement.limit(MOST_STEPS + 1))
    if not steps:
        raise NotFound("There is no such trace.")
    return {"trace_id": canonical, "truncated": len(steps) > MOST_STEPS, "steps": steps[:MOST_STEPS]}
