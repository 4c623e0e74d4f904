"""Readings of devices: POST /ingest/v1/readings."""

import logging
from collections import Counter
from datetime import UTC, datetime
from typing import Any

import asyncpg
import orjson
from fastapi import APIRouter, Request
from pydantic import BaseModel
from starlette.responses import Response

from services.shared import tracing
from services.shared.logging import tell
from services.ui_iot.auth.guard import REPORTERS, GuardedRoute, allow
from services.ui_iot.auth.principal import Principal
from services.ui_iot.auth.request_context import Caller
from services.ui_iot.backend import Api, Backend
from services.ui_iot.http.problem_handlers import LIMIT_REACHED
from services.ui_iot.http.problems import UNREADABLE, BadRequest, TooLarge, Unprocessable
from services.ui_iot.ingest.readings import SERIES_LIMIT, ReadingBatch, ReadingLimits
from services.ui_iot.ingest.readings_body import check_items, decode_body
from services.ui_iot.openapi import problems
from services.ui_iot.resources.fields import shown

log = logging.getLogger(__name__)

# Refused readings that the audit event lists. Its counts by reason are complete.
AUDITED_REFUSALS = 20
_OUTCOMES = ("accepted", "duplicates", "overwritten")

router = APIRouter(prefix="/ingest/v1", tags=["ingest"], route_class=GuardedRoute)


class RefusedReading(BaseModel):
    """A reading that was not stored."""

    index: int
    """Position in the request, from 0."""
    reason: str
    detail: str


class ReadingsResult(BaseModel):
    """The outcome of each reading of a request."""

    model_config = shown(
        accepted=1,
        duplicates=0,
        overwritten=0,
        refused=[{"index": 1, "reason": "unknown_device", "detail": "The tenant has no device with this device_id."}],
        trace_id="0af7651916cd43dd8448eb211c80319c",
    )
    accepted: int
    """Readings stored for an instant that had no value."""
    duplicates: int
    """Readings that repeat the stored value of their device, metric and instant. They have no effect."""
    overwritten: int
    """Readings that replaced another value of their device, metric and instant. Every value is evaluated."""
    refused: list[RefusedReading]
    trace_id: str


_READING = {
    "type": "object",
    "required": ["device_id", "metric", "value"],
    "additionalProperties": False,
    "properties": {
        "device_id": {"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9._:-]{0,127}$"},
        "metric": {"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9._:/-]{0,127}$"},
        "value": {"type": "number"},
        "timestamp": {
            "description": "RFC 3339 text, or seconds since 1970, to the microsecond. Default: time of the request.",
            "anyOf": [{"type": "string", "format": "date-time"}, {"type": "number"}, {"type": "null"}],
        },
    },
}
_READINGS = {"type": "array", "items": _READING, "maxItems": 10_000}
_REQUEST_BODY = {
    "required": True,
    "content": {
        "application/json": {
            "schema": {
                "anyOf": [
                    {
                        "type": "object",
                        "required": ["readings"],
                        "additionalProperties": False,
                        "properties": {"readings": _READINGS},
                    },
                    _READINGS,
                    _READING,
                ]
            },
            "example": {
                "readings": [
                    {"device_id": "boiler-1", "metric": "heat", "value": 81.5, "timestamp": "2026-01-05T12:00:00Z"},
                    {"device_id": "boiler-9", "metric": "heat", "value": 20},
                ]
            },
        }
    },
}


@router.post(
    "/readings",
    status_code=202,
    response_model=ReadingsResult,
    responses=problems(413),
    openapi_extra={**allow(REPORTERS), "requestBody": _REQUEST_BODY},
)
async def post_readings(request: Request, api: Api, caller: Caller) -> Response:
    """Send readings: an object with `readings`, a bare array, or one reading.

    Each reading is stored or refused individually, and the four counts add up to the number of readings sent. Readings
    are evaluated in their order in the request.

    An instant is a microsecond: further digits of a text are cut off, and a number is rounded. The same value for the
    same instant is a duplicate. Another value for the same instant is evaluated after the first one and replaces it. So
    a repeated request needs the same timestamps; an `Idempotency-Key` has no effect.

    The token of a device sends readings of this device only, unless the device is a gateway.
    """
    try:
        items = await decode_body(await request.body(), api.turns, most_readings=api.settings.ingest_max_readings)
    except ValueError:
        raise BadRequest(UNREADABLE) from None
    if items is None:
        raise Unprocessable("The body must be JSON: an object with readings, an array of readings, or one reading.")
    most = api.settings.ingest_max_readings
    if len(items) > most:
        raise TooLarge(f"A request may have at most {most} readings (PULSE_INGEST_MAX_READINGS).")
    batch = await check_items(items, _limits(api, caller), api.turns)
    stored = await _store(api, caller, batch)
    counts = {**stored, "refused": len(batch.refused)}
    tell(log, logging.INFO, "readings received", {**counts, "tenant_id": caller.tenant_id})
    if batch.refused:
        _audit_refused(api, caller, batch)
    body = {**counts, "refused": batch.refused, "trace_id": tracing.current_trace_id()}
    return Response(orjson.dumps(body), 202, media_type="application/json")


def _limits(api: Backend, caller: Principal) -> ReadingLimits:
    return ReadingLimits(
        now=datetime.now(UTC),
        max_age_seconds=api.settings.ingest_max_age_seconds,
        max_future_seconds=api.settings.ingest_max_future_seconds,
        only_device=caller.actor.id if caller.role == "device" and not caller.is_gateway else None,
    )


async def _store(api: Backend, caller: Principal, batch: ReadingBatch) -> dict[str, int]:
    """Store the accepted readings and return the number of each outcome."""
    if not batch.device_ids:
        return dict.fromkeys(_OUTCOMES, 0)
    try:
        row = await _record(api, caller, batch)
    except asyncpg.PostgresError as error:
        if error.sqlstate != LIMIT_REACHED:
            raise
        # Readings of known series are still stored. Finding them first would cost every request, so only this one pays.
        row = await _record(api, caller, batch, skip_new_series=True)
    batch.refuse_stored(row["refused"])
    above = sum(entry["reason"] == SERIES_LIMIT for entry in row["refused"])
    if above:
        api.refusals.count(caller.tenant_id, "series", refused=above)
    return {outcome: row[outcome] for outcome in _OUTCOMES}


async def _record(api: Backend, caller: Principal, batch: ReadingBatch, *, skip_new_series: bool = False) -> Any:
    return await api.change(
        caller,
        lambda connection: connection.fetchrow(
            "select accepted, duplicates, overwritten, refused from ingest.record_readings($1, $2, $3, $4, $5, $6, $7)",
            caller.tenant_id,
            batch.device_ids,
            batch.metrics,
            batch.timestamps,
            batch.values,
            tracing.current_trace_id(),
            skip_new_series,
        ),
    )


def _audit_refused(api: Backend, caller: Principal, batch: ReadingBatch) -> None:
    first: list[dict[str, Any]] = [
        {"index": entry["index"], "reason": entry["reason"]} for entry in batch.refused[:AUDITED_REFUSALS]
    ]
    api.audit.device_rejected(
        reasons=Counter(entry["reason"] for entry in batch.refused),
        tenant_id=caller.tenant_id,
        actor=caller.actor,
        ip_address=caller.ip_address,
        details={"first": first},
    )
