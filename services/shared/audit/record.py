"""From an event to the row that is stored: cleaned at the door, so that what waits in a buffer is small and safe."""

import ipaddress
import math
from dataclasses import replace
from datetime import UTC
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address
from typing import Any, TypeAlias

import orjson

from services.shared.audit import cleaning
from services.shared.audit.cleaning import LONGEST_MESSAGE, LONGEST_NAME, LONGEST_TENANT, LONGEST_WORD
from services.shared.audit.event import AuditEvent

Record: TypeAlias = tuple[Any, ...]
Address: TypeAlias = IPv4Address | IPv6Address

COLUMNS = (
    "tenant_id",
    "timestamp",
    "event_id",
    "event_type",
    "category",
    "severity",
    "entity_type",
    "entity_id",
    "entity_name",
    "action",
    "message",
    "details",
    "source_service",
    "actor_type",
    "actor_id",
    "actor_name",
    "ip_address",
    "trace_id",
    "duration_ms",
)


def make_record(event: AuditEvent, service: str) -> Record:
    """The row of an event: values in the order of COLUMNS, details encoded already. Never raises."""
    try:
        details = orjson.dumps(event.details, default=str, option=orjson.OPT_NON_STR_KEYS) if event.details else b"{}"
        address = parse_address(event.ip_address)
        if _is_clean(event, details.decode()) and (address is not None or event.ip_address is None):
            return _make_row(event, service, address, details)
    except Exception:  # whatever an odd value broke here, the thorough way copes with it
        pass
    return _make_clean_record(event, service)


def parse_address(value: str | Address | None) -> Address | None:
    """The address, an IPv4 address inside IPv6 as IPv4; None for what is none."""
    # The length is checked before the cache, which must not keep what a client made long.
    if value is None or (isinstance(value, str) and len(value) > LONGEST_WORD):
        return None
    return _parse_address(value)


@lru_cache(maxsize=4096)
def _parse_address(value: str | Address) -> Address | None:
    try:
        address = ipaddress.ip_address(value)
    except ValueError:
        return None
    # Rebuilt from its bytes, an IPv6 address loses a scope, which Postgres does not know.
    return getattr(address, "ipv4_mapped", None) or ipaddress.ip_address(address.packed)


def _is_clean(event: AuditEvent, details: str) -> bool:
    # One look at everything a client may have had a hand in; a None is as harmless as any other word.
    return (
        len(event.tenant_id) <= LONGEST_TENANT
        and (event.entity_id is None or len(event.entity_id) <= LONGEST_NAME)
        and event.timestamp.tzinfo is not None
        and (event.duration_ms is None or math.isfinite(event.duration_ms))
        and cleaning.is_clean(
            f"{event.message} {event.tenant_id} {event.entity_type} {event.entity_id} {event.entity_name} "
            f"{event.actor_type} {event.actor_id} {event.actor_name} {event.trace_id} {details}"
        )
    )


def _make_row(event: AuditEvent, service: str, address: Address | None, details: bytes) -> Record:
    category, _, action = event.event_type.partition(".")
    return (
        event.tenant_id,
        event.timestamp,
        event.event_id,
        event.event_type,
        category,
        event.severity,
        event.entity_type,
        event.entity_id,
        event.entity_name,
        action,
        event.message,
        orjson.Fragment(details),
        service,
        event.actor_type,
        event.actor_id,
        event.actor_name,
        address,
        event.trace_id,
        event.duration_ms,
    )


def _make_clean_record(event: AuditEvent, service: str) -> Record:
    found = cleaning.clean_value(event.details)
    details = found if isinstance(found, dict) else {"value": found}
    address = parse_address(event.ip_address) if isinstance(event.ip_address, str | IPv4Address | IPv6Address) else None
    if address is None and event.ip_address is not None:
        details["invalid_ip_address"] = _clean(event.ip_address, LONGEST_WORD)
    cleaned = replace(
        event,
        message=_clean(event.message, LONGEST_MESSAGE) or "",
        tenant_id=_clean(event.tenant_id, LONGEST_TENANT) or "system",
        entity_type=_clean(event.entity_type, LONGEST_WORD),
        entity_id=_clean(event.entity_id, LONGEST_NAME),
        entity_name=_clean(event.entity_name, LONGEST_NAME),
        actor_type=_clean(event.actor_type, LONGEST_WORD),
        actor_id=_clean(event.actor_id, LONGEST_NAME),
        actor_name=_clean(event.actor_name, LONGEST_NAME),
        trace_id=_clean(event.trace_id, LONGEST_WORD),
        duration_ms=event.duration_ms if event.duration_ms is not None and math.isfinite(event.duration_ms) else None,
        timestamp=event.timestamp if event.timestamp.tzinfo else event.timestamp.replace(tzinfo=UTC),
    )
    return _make_row(cleaned, service, address, _encode(details))


def _clean(value: object, longest: int) -> str | None:
    return None if value is None else cleaning.clean_text(cleaning.say(value), longest)


def _encode(details: dict[str, Any]) -> bytes:
    encoded = orjson.dumps(details)
    if len(encoded) <= cleaning.LONGEST_DETAILS:
        return encoded
    start = cleaning.clean_text(encoded.decode(), LONGEST_MESSAGE)
    return orjson.dumps({"truncated_bytes": len(encoded), "start": start})


def make_quarantine(record: Record, error: BaseException) -> Record:
    """The row for an event the database refused: same id and time, nothing of it but an ASCII rendering in details."""
    event = dict(zip(COLUMNS, record, strict=True))
    event["details"] = orjson.dumps(event["details"]).decode()
    rendering = {name: ascii(value)[:LONGEST_NAME] for name, value in event.items() if value is not None}
    quarantined = AuditEvent(
        event_type="audit.quarantined",
        severity="error",
        message="an event could not be stored as it was",
        details={"error": type(error).__name__, "sqlstate": getattr(error, "sqlstate", None), "event": rendering},
        actor_type="service",
        actor_id=event["source_service"],
        trace_id=None,
        timestamp=event["timestamp"],
        event_id=event["event_id"],
    )
    return make_record(quarantined, event["source_service"])


def is_quarantine(record: Record) -> bool:
    """Whether the row is one that make_quarantine made."""
    return bool(record[COLUMNS.index("event_type")] == "audit.quarantined")
