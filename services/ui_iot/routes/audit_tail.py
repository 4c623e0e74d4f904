"""The audit trail of the caller's tenant as a stream of server-sent events: /api/v1/audit/tail."""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import asyncpg
from fastapi import APIRouter, Depends, Header, Query, Request
from pydantic import Field
from starlette.responses import StreamingResponse

from services.shared.audit import AuditBlocked
from services.shared.db import UNAVAILABLE
from services.ui_iot.audit.tails import Seat
from services.ui_iot.audit.trail import AuditFilter, Place, Stretch, TrailReading, place_of, read_place, write_place
from services.ui_iot.auth.credentials import read_headers
from services.ui_iot.auth.guard import AUDITORS, GuardedRoute, allow
from services.ui_iot.auth.principal import Principal
from services.ui_iot.auth.request_context import Caller, context_of
from services.ui_iot.backend import Api, Backend
from services.ui_iot.openapi import problems
from services.ui_iot.resources.paging import LONGEST_CURSOR
from services.ui_iot.routes.audit import AuditEventShown, record_read

log = logging.getLogger(__name__)

router = APIRouter(prefix="/api/v1/audit", tags=["audit"], route_class=GuardedRoute)

HEARTBEAT_SECONDS = 15.0
# A tail ends within 5 s after its token or key was revoked, like every other use of both.
CHECK_SECONDS = 1.0
# A tail that lasts is recorded again after this time.
RENEWAL_SECONDS = 3600.0

Cursor = Annotated[str, Field(max_length=LONGEST_CURSOR)]


class TailQuery(AuditFilter):
    """Filters and start of a stream of audit events."""

    after: Cursor | None = None
    """Continue after this event `id`, `next_cursor` or `tail_cursor`. `Last-Event-ID` takes precedence."""
    start: Literal["end", "beginning"] = "end"
    """Start if neither is given: `end` sends events sealed from now on, `beginning` starts with the first event."""


class EventStream(StreamingResponse):
    """Server-sent events."""

    media_type = "text/event-stream"


@dataclass(slots=True)
class AuditTail:
    """One client's tail. place: where the next read begins, or None for the first event."""

    api: Backend
    caller: Principal
    request: Request
    query: TailQuery
    place: Place | None
    seat: Seat
    checked_at: float = field(default_factory=time.monotonic)
    """Monotonic time of the last check of the token."""

    async def find_start(self) -> None:
        """Check the place, or set it to the trail's end. Raises PostgresError PU422 if this trail lacks the place."""
        at_end = self.place is None and self.query.start == "end"
        found = await self.read(TrailReading(matching={}, newest_first=at_end, limit=1))
        if at_end:
            self.place = found.end

    async def stream(self) -> AsyncIterator[str]:
        """Yield events as they are sealed, until the process stops, the token ends or the database is away.

        Nothing is read before the client has taken what was sent, and no transaction is open meanwhile.
        """
        reading = TrailReading(matching=self.query.matching())
        told_at = beaten_at = time.monotonic()
        yield ": the audit trail in sealed order\n\n"
        while not (self.api.tails.stopping or self.seat.is_ended):
            self.seat.woken.clear()
            try:
                found = await self.read(reading)
            except (*UNAVAILABLE, asyncpg.PostgresError) as error:
                log.warning("tail ended: %s", type(error).__name__)
                return
            self.place = found.place
            if not await self._may_go_on():
                return
            if found.events:
                yield "".join(map(_write_event, found.events))
            now = time.monotonic()
            if now - beaten_at >= HEARTBEAT_SECONDS:
                if now - told_at >= RENEWAL_SECONDS:
                    try:
                        await self.record()
                    except AuditBlocked:
                        # An unrecorded read must end. The client reconnects with its place and gets the reason.
                        return
                    told_at = now
                # An id without data dispatches no event, but moves the place from which the client resumes.
                yield f": sealed_at {found.sealed_at}\nid: {write_place(self.place)}\n\n"
                beaten_at = now
            if found.is_last and not await self._wait(beaten_at + HEARTBEAT_SECONDS):
                return

    async def record(self) -> None:
        """Record that the trail is read."""
        await record_read(self.api, self.caller, self.query, None)

    async def read(self, reading: TrailReading) -> Stretch:
        """Return the next events, read in a separate transaction."""
        return await self.api.read(self.caller, lambda connection: reading.of_tenant(connection, self.place))

    async def _wait(self, until: float) -> bool:
        """Wait for events until a monotonic time, and return whether the token is still valid."""
        while not self.seat.woken.is_set() and (rest := until - time.monotonic()) > 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(rest, CHECK_SECONDS)):
                    await self.seat.woken.wait()
            if not await self._may_go_on():
                return False
        return True

    async def _may_go_on(self) -> bool:
        """Return whether the token is still valid, as checked within the last CHECK_SECONDS."""
        if time.monotonic() - self.checked_at < CHECK_SECONDS:
            return True
        self.checked_at = time.monotonic()
        scope = self.request.scope
        found = await self.api.authenticator.authenticate(read_headers(scope), context_of(scope).address, method="GET")
        return (
            isinstance(found, Principal)
            and (found.tenant_id, found.actor) == (self.caller.tenant_id, self.caller.actor)
            and found.role in AUDITORS
        )


def _write_event(event: Mapping[str, Any]) -> str:
    shown = AuditEventShown.model_validate(event).model_dump_json()
    return f"id: {write_place(place_of(event))}\nevent: audit\ndata: {shown}\n\n"


async def _take_seat(api: Api, caller: Caller) -> AsyncIterator[Seat]:
    """Yield a seat, which is held until the response ends."""
    with api.tails.open(caller.tenant_id) as seat:
        yield seat


@router.get(
    "/tail",
    response_class=EventStream,
    responses={
        **problems(),
        200: {
            "description": "An endless stream of audit events.",
            "content": {EventStream.media_type: {"example": "id: WyJhdWRpdCIs…\nevent: audit\ndata: {…}\n\n"}},
        },
    },
    openapi_extra=allow(AUDITORS),
)
async def tail_audit_events(
    request: Request,
    api: Api,
    caller: Caller,
    query: Annotated[TailQuery, Query()],
    seat: Annotated[Seat, Depends(_take_seat)],
    last_event_id: Annotated[Cursor | None, Header(description="The last event id that the client received.")] = None,
) -> EventStream:
    """Stream the tenant's audit events in their sealed order, each exactly once, about a second after they happened.

    The server-sent events have the type `audit`. Their data is a JSON object as in `/api/v1/audit/events`, and their
    id is their place in the order. A client that reconnects with `Last-Event-ID` or `after` misses no event and
    receives none twice. Every 15 seconds a comment contains the time of the newest sealed block. If it is old, the
    sealer has stopped.

    The stream ends when the token expires or is revoked, the server stops, or the database is unavailable. Its start is
    recorded as an audit event, and so is each further hour.

    The number of streams is limited. A tenant that has half of all streams gets 429. If all are in use, a tenant with
    fewer streams takes the place of the newest stream of a tenant with more. If all tenants have the same number, the
    next stream gets 503.
    """
    cursor = last_event_id or query.after
    tail = AuditTail(api, caller, request, query, None if cursor is None else read_place(cursor), seat)
    await tail.find_start()
    await tail.record()
    return EventStream(tail.stream(), headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
