"""Everything that one request caused: /api/v1/traces/{trace_id}."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Path
from pydantic import BaseModel

from services.shared.db import Connection
from services.shared.tracing import parse_trace_id
from services.ui_iot.auth.guard import AUDITORS, READERS, GuardedRoute, allow
from services.ui_iot.auth.request_context import Caller
from services.ui_iot.backend import Api
from services.ui_iot.http.problems import NotFound, Unprocessable
from services.ui_iot.openapi import problems
from services.ui_iot.resources.fields import shown

router = APIRouter(prefix="/api/v1/traces", tags=["traces"], route_class=GuardedRoute)

# One request of 10,000 readings can open an alert on each device. A person reads only the beginning.
MOST_STEPS = 1000
# Rows of each kind that are read. A client that never changes its trace id makes an endless trace, which must not hold
# connections that other requests wait for.
MOST_ROWS = 2000
# The answer is 422, because a 503 would report a fault of the server.
MOST_SECONDS = 2.0

_STEP_SHOWN: dict[str, Any] = {
    "span_id": "6a16b5f0d52e4be9",
    "parent_span_id": "b7ad6b7169203331",
    "kind": "reading",
    "at": "2026-01-05T12:00:00Z",
    "duration_ms": None,
    "service": "ui_iot",
    "entity_type": "device",
    "entity_id": "boiler-1",
    "what": "temperature is 81.5",
    "details": {"metric": "temperature", "readings": 1},
}


class TraceStep(BaseModel):
    """One row with the trace id."""

    model_config = shown(**_STEP_SHOWN)
    span_id: str
    parent_span_id: str | None
    """The step that caused this one, or null."""
    kind: str
    """request, reading, evaluation, alert, event, suppression, job, attempt or audit."""
    at: datetime
    duration_ms: float | None
    service: str
    entity_type: str | None
    entity_id: str | None
    what: str
    details: dict[str, Any] | None


class Trace(BaseModel):
    """The effects of one request, as a tree in order of time."""

    model_config = shown(trace_id="0af7651916cd43dd8448eb211c80319c", truncated=False, steps=[_STEP_SHOWN])
    trace_id: str
    truncated: bool
    """True if the trace has more steps. Only some rows of each kind are read of a very large trace."""
    steps: list[TraceStep]


@router.get("/{trace_id}", response_model=Trace, responses=problems(404), openapi_extra=allow(READERS))
async def get_trace(
    api: Api,
    caller: Caller,
    trace_id: Annotated[str, Path(max_length=36, description="32 hexadecimal digits, or a UUID.")],
) -> dict[str, Any]:
    """Return the effects of a request: readings, evaluations, alerts, notifications, attempts and audit events."""
    canonical = parse_trace_id(trace_id)
    if canonical is None:
        raise NotFound("There is no such trace.")
    async with api.timelines.turn(caller.tenant_id):
        rows = await api.read(caller, lambda connection: _read_steps(connection, canonical))
    if not rows:
        raise NotFound("There is no such trace.")
    shown = [_visible(dict(row), whole=caller.role in AUDITORS) for row in rows[:MOST_STEPS]]
    truncated = len(rows) > MOST_STEPS or any((step["details"] or {}).get("truncated") for step in shown)
    return {"trace_id": canonical, "truncated": truncated, "steps": close_tree(shown)}


async def _read_steps(connection: Connection, trace_id: str) -> Sequence[Any]:
    query = "select * from api.trace_timeline($1, $2) limit $3"
    try:
        steps: Sequence[Any] = await connection.fetch(query, trace_id, MOST_ROWS, MOST_STEPS + 1, timeout=MOST_SECONDS)
    except TimeoutError:
        raise Unprocessable("The trace has too many rows to be read in time.") from None
    return steps


def _visible(step: dict[str, Any], *, whole: bool) -> dict[str, Any]:
    """Return the step. Readers that may not read the audit trail see only the event type of its rows."""
    if whole or step["kind"] not in ("request", "audit"):
        return step
    return {**step, "details": {"event_type": step["details"]["event_type"]}}


def close_tree(steps: Sequence[dict[str, Any]]) -> Sequence[dict[str, Any]]:
    """Return the steps, as roots if their parent is missing: a wrong clock may sort a child before the cut."""
    shown = {step["span_id"] for step in steps}
    return [step if step["parent_span_id"] in shown else {**step, "parent_span_id": None} for step in steps]
