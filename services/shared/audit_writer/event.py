"""Audit events before they are stored, and those that authentication makes."""

import hmac
import logging
import os
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Any, Final, TypedDict, Unpack
from uuid import UUID

from asyncpg.pgproto import pgproto

from services.shared import db, tracing
from services.shared.write_once import write_once

_VERSION_7 = 7 << 76 | 2 << 62
_RANDOM = (1 << 80) - 1 ^ (15 << 76 | 3 << 62)


def new_event_id() -> UUID:
    """A UUID of version 7: milliseconds since 1970, then 74 random bits, so that ids sort by time."""
    random = int.from_bytes(os.urandom(10), "big") & _RANDOM
    # asyncpg's UUID is one like any other, made and written several times as fast.
    event_id: UUID = pgproto.UUID((time.time_ns() // 1_000_000 << 80 | random | _VERSION_7).to_bytes(16, "big"))
    return event_id


def _now() -> datetime:
    return datetime.now(UTC)


# Not frozen: object.__setattr__ for each of 17 fields would make an event half as dear again (3.8 µs against 2.4).
@dataclass(slots=True, kw_only=True, eq=False)
class AuditEvent:
    """Something that happened and must be on record; nobody changes it once it is made.

    timestamp and event_id are fixed here, once: a write that is repeated sends the same two and stores one row.
    """

    event_type: str
    """category.action, from audit.event_types."""
    message: str
    """One sentence for people."""
    tenant_id: str = "system"
    severity: str = "info"
    entity_type: str | None = None
    entity_id: str | None = None
    entity_name: str | None = None
    details: Mapping[str, Any] = field(default_factory=dict)
    """The particulars; whatever looks like a secret is redacted before it is kept."""
    actor_type: str | None = None
    """user, device, service or anonymous."""
    actor_id: str | None = None
    actor_name: str | None = None
    ip_address: str | IPv4Address | IPv6Address | None = None
    trace_id: str | None = field(default_factory=tracing.current_trace_id)
    duration_ms: float | None = None
    timestamp: datetime = field(default_factory=_now)
    # asyncpg's UUID is one like any other, made and written several times as fast.
    event_id: UUID = field(default_factory=new_event_id)


_REFUSAL_TYPES: Final = {"forbidden": "auth.forbidden", "rate_limited": "auth.rate_limited"}
REFUSALS: Final = frozenset({"auth.login_failure", *_REFUSAL_TYPES.values()})

_ANONYMOUS = db.Actor("anonymous", "")


class Facts(TypedDict, total=False):
    """What is known about a request: all of it optional."""

    tenant_id: str | None
    actor: db.Actor | None
    """Who it is, proven."""
    account: str | None
    """Who it claims to be, unproven; only a pseudonym of it is stored."""
    ip_address: str | IPv4Address | IPv6Address | None
    duration_ms: float | None
    details: Mapping[str, Any]


class AuthEvents:
    """Makes the events. pseudonym: the stored form of an account's name."""

    def __init__(self, pseudonym: Callable[[str], str]) -> None:
        self._pseudonym = pseudonym

    def success(self, **facts: Unpack[Facts]) -> AuditEvent:
        """A caller was let in.

        A device's is device.authenticated: a fleet shows its tokens many times a second, and auth.* is where people's
        logins and every refusal must stay visible.
        """
        actor = facts.get("actor")
        if actor is not None and actor.type == "device":
            return self._make("device.authenticated", "debug", "device let in", facts)
        return self._make("auth.login_success", "info", "caller let in", facts)

    def failure(self, *, reason: str, **facts: Unpack[Facts]) -> AuditEvent:
        """A caller was turned away; the reason decides between login_failure, forbidden and rate_limited."""
        event_type = _REFUSAL_TYPES.get(reason, "auth.login_failure")
        return self._make(event_type, "warning", f"caller turned away: {reason}", facts, {"reason": reason})

    def token_refresh(self, **facts: Unpack[Facts]) -> AuditEvent:
        """A caller got a new access token for its refresh token."""
        return self._make("auth.token_refresh", "info", "caller got a fresh session", facts)

    def device_rejected(self, *, reasons: Mapping[str, int], **facts: Unpack[Facts]) -> AuditEvent:
        """Readings were refused before they reached the database; reasons: how many for which."""
        count = sum(reasons.values())
        details = {"refused": count, "reasons": dict(reasons)}
        return _make("device.readings_refused", "warning", f"{count} readings refused", facts, details)

    def _make(
        self, event_type: str, severity: str, message: str, facts: Facts, details: Mapping[str, Any] | None = None
    ) -> AuditEvent:
        account = facts.get("account") or _account_of(facts.get("actor"), facts.get("tenant_id"))
        more = {} if account is None else {"account": self._pseudonym(account)}
        return _make(event_type, severity, message, facts, {**more, **(details or {})})


def device_account(tenant_id: str | None, device_id: str | None = None) -> str:
    """The account of a device; of an unknown one the whole fleet's, for that is all its token tells."""
    fleet = f"device:{tenant_id or 'system'}"
    return fleet if device_id is None else f"{fleet}/{device_id}"


def _account_of(actor: db.Actor | None, tenant_id: str | None) -> str | None:
    if actor is None or not actor.id:
        return None
    return device_account(tenant_id, actor.id) if actor.type == "device" else actor.id


def _make(event_type: str, severity: str, message: str, facts: Facts, details: Mapping[str, Any]) -> AuditEvent:
    actor = facts.get("actor") or _ANONYMOUS
    is_device = actor.type == "device"
    return AuditEvent(
        event_type=event_type,
        severity=severity,
        message=message,
        tenant_id=facts.get("tenant_id") or "system",
        entity_type="device" if is_device else None,
        entity_id=actor.id if is_device else None,
        details={**facts.get("details", {}), **details},
        actor_type=actor.type,
        actor_id=actor.id,
        actor_name=actor.name,
        ip_address=facts.get("ip_address"),
        duration_ms=facts.get("duration_ms"),
    )


log = logging.getLogger(__name__)

KEY_FILE = "pseudonym.key"
_SHORTEST_KEY = 16


class Pseudonyms:
    """Makes the pseudonym of an account."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def of(self, account: str) -> str:
        """acct_ and 32 hex digits of HMAC-SHA256: the same for the same account and key."""
        return "acct_" + hmac.digest(self._key, account.encode("utf-8", "replace"), "sha256").hex()[:32]


def read_key(file: Path) -> bytes:
    """The key in the file, made when there is none: of two processes at once, both get the first one's."""
    try:
        key = write_once(file, secrets.token_hex(32).encode()).strip()
        if len(key) >= _SHORTEST_KEY:
            return key
        log.error("the key of the audit pseudonyms in %s is too short: one for this run is used", file)
    except OSError as error:
        log.error(  # noqa: TRY400  # for an operator, who needs no traceback
            "no key of the audit pseudonyms in %s: %s; one for this run is used", file, error.strerror or error
        )
    return secrets.token_bytes(32)
