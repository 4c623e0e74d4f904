"""AuditLogger: the way into the audit trail for what only Python knows, mainly who was let in and who was not."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, TypedDict, Unpack

from prometheus_client import CollectorRegistry

from services.shared import db
from services.shared.audit.collector import LaneCollector
from services.shared.audit.event import AuditEvent
from services.shared.audit.lane import Lane
from services.shared.audit.record import Address, make_line
from services.shared.audit.store import Store, call, copy
from services.shared.settings import Settings

# COPY of 5,000 rows costs a fifth less a row than of 1,000; a batch that fails costs more the longer it is.
COPY_BATCH = 5000
CALL_BATCH = 1000

_REFUSAL_TYPES = {"forbidden": "auth.forbidden", "rate_limited": "auth.rate_limited"}
_REFUSALS = frozenset({"auth.login_failure", *_REFUSAL_TYPES.values()})


_ANONYMOUS = db.Actor("anonymous", "")


class Facts(TypedDict, total=False):
    """What is known about a request: all of it optional."""

    tenant_id: str | None
    actor: db.Actor | None
    ip_address: str | Address | None
    duration_ms: float | None
    details: Mapping[str, Any]


class AuditLogger:
    """Takes events without waiting and stores each exactly once.

    Refused logins go through audit.record_auth_failure, everything else by COPY, each kind over a buffer and a
    connection of its own. The pool should be nobody else's, as open_audit_logger makes it: then no flood of logins can
    take a connection from the requests.
    """

    def __init__(self, pool: db.Pool, *, service: str, buffer_size: int, registry: CollectorRegistry) -> None:
        self._service = service
        copies, calls = Store(pool, copy), Store(pool, call)
        self._events = Lane("events", copies, service=service, limit=buffer_size, batch_size=COPY_BATCH)
        self._refusals = Lane("auth_failures", calls, service=service, limit=buffer_size, batch_size=CALL_BATCH)
        registry.register(LaneCollector({self._events: copies, self._refusals: calls}))

    async def start(self) -> None:
        """Begin to store; what was logged before is kept."""
        self._events.start()
        self._refusals.start()

    async def stop(self, *, seconds: float = 5.0) -> int:
        """Store what is left; returns how many events could not be stored in that time, and logs it."""
        return sum(await asyncio.gather(self._events.stop(seconds=seconds), self._refusals.stop(seconds=seconds)))

    def log(self, event: AuditEvent) -> bool:
        """Take an event, from the event loop's thread; False when the buffer is full and the event is lost."""
        lane = self._refusals if event.event_type in _REFUSALS else self._events
        return lane.put(make_line(event, self._service))

    def auth_success(self, **facts: Unpack[Facts]) -> bool:
        """A caller was let in.

        A device's is device.authenticated: a fleet shows its tokens many times a second, and auth.* is where people's
        logins and every refusal must stay visible.
        """
        actor = facts.get("actor")
        if actor is not None and actor.type == "device":
            return self._log("device.authenticated", "debug", "device let in", facts)
        return self._log("auth.login_success", "info", "caller let in", facts)

    def auth_failure(self, *, reason: str, **facts: Unpack[Facts]) -> bool:
        """A caller was turned away; the reason decides between login_failure, forbidden and rate_limited."""
        event_type = _REFUSAL_TYPES.get(reason, "auth.login_failure")
        return self._log(event_type, "warning", f"caller turned away: {reason}", facts, {"reason": reason})

    def auth_rate_limited(self, **facts: Unpack[Facts]) -> bool:
        """An address was turned away without a look at its token."""
        return self.auth_failure(reason="rate_limited", **facts)

    def auth_token_refresh(self, **facts: Unpack[Facts]) -> bool:
        """A caller got a new access token for its refresh token."""
        return self._log("auth.token_refresh", "info", "caller got a fresh session", facts)

    def device_rejected(self, *, reasons: Mapping[str, int], **facts: Unpack[Facts]) -> bool:
        """Readings were refused before they reached the database; reasons: how many for which."""
        count = sum(reasons.values())
        details = {"refused": count, "reasons": dict(reasons)}
        return self._log("device.readings_refused", "warning", f"{count} readings refused", facts, details)

    def _log(
        self, event_type: str, severity: str, message: str, facts: Facts, details: Mapping[str, Any] | None = None
    ) -> bool:
        actor = facts.get("actor") or _ANONYMOUS
        is_device = actor.type == "device"
        given = facts.get("details")
        return self.log(
            AuditEvent(
                event_type=event_type,
                severity=severity,
                message=message,
                tenant_id=facts.get("tenant_id") or "system",
                entity_type="device" if is_device else None,
                entity_id=actor.id if is_device else None,
                details={**given, **details} if given and details else given or details or {},
                actor_type=actor.type,
                actor_id=actor.id,
                actor_name=actor.name,
                ip_address=facts.get("ip_address"),
                duration_ms=facts.get("duration_ms"),
            )
        )


@asynccontextmanager
async def open_audit_logger(
    settings: Settings, *, buffer_size: int, registry: CollectorRegistry
) -> AsyncIterator[AuditLogger]:
    """An AuditLogger over a pool of its own: two connections, opened at the first event; the database may be away."""
    pool = await db.open_pool(settings.model_copy(update={"pool_min_size": 0, "pool_max_size": 2}))
    logger = AuditLogger(pool, service=settings.service, buffer_size=buffer_size, registry=registry)
    await logger.start()
    try:
        yield logger
    finally:
        await logger.stop()
        pool.terminate()
