"""Audit events, and the events of authentication with their pseudonyms of accounts."""

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

log = logging.getLogger(__name__)

KEY_FILE = "pseudonym.key"
_SHORTEST_KEY = 16
_VERSION_7 = 7 << 76 | 2 << 62
_RANDOM = (1 << 80) - 1 ^ (15 << 76 | 3 << 62)


def new_event_id() -> UUID:
    """Return a UUID of version 7: milliseconds since 1970, then 74 random bits. Ids sort by time."""
    random = int.from_bytes(os.urandom(10), "big") & _RANDOM
    # asyncpg's UUID is made and written several times as fast as the standard library's.
    event_id: UUID = pgproto.UUID((time.time_ns() // 1_000_000 << 80 | random | _VERSION_7).to_bytes(16, "big"))
    return event_id


def _now() -> datetime:
    return datetime.now(UTC)


# Not frozen: object.__setattr__ for each of 17 fields would raise the cost of an event from 2.4 to 3.8 µs.
@dataclass(slots=True, kw_only=True, eq=False)
class AuditEvent:
    """An event for the audit trail, never changed after its creation.

    timestamp and event_id are fixed here, so a repeated write sends the same two values and stores one row.
    """

    event_type: str
    """category.action, from audit.event_types."""
    message: str
    """One sentence for human readers."""
    tenant_id: str = "system"
    severity: str = "info"
    entity_type: str | None = None
    entity_id: str | None = None
    entity_name: str | None = None
    details: Mapping[str, Any] = field(default_factory=dict)
    """Further members; values that look like secrets are redacted before they are stored."""
    actor_type: str | None = None
    """user, device, service or anonymous."""
    actor_id: str | None = None
    actor_name: str | None = None
    ip_address: str | IPv4Address | IPv6Address | None = None
    trace_id: str | None = field(default_factory=tracing.current_trace_id)
    duration_ms: float | None = None
    timestamp: datetime = field(default_factory=_now)
    event_id: UUID = field(default_factory=new_event_id)


_REFUSAL_TYPES: Final = {"forbidden": "auth.forbidden", "rate_limited": "auth.rate_limited"}
REFUSALS: Final = frozenset({"auth.login_failure", *_REFUSAL_TYPES.values()})

_ANONYMOUS = db.Actor("anonymous", "")


class Facts(TypedDict, total=False):
    """Known facts about a request; each is optional."""

    tenant_id: str | None
    actor: db.Actor | None
    """The authenticated caller."""
    account: str | None
    """The claimed, unproven account; only its pseudonym is stored."""
    ip_address: str | IPv4Address | IPv6Address | None
    duration_ms: float | None
    details: Mapping[str, Any]


class AuthEvents:
    """Makes the events. pseudonym: returns the stored form of an account's name."""

    def __init__(self, pseudonym: Callable[[str], str]) -> None:
        self._pseudonym = pseudonym

    def success(self, **facts: Unpack[Facts]) -> AuditEvent:
        """Return the event of an accepted caller.

        A device's event is device.authenticated: a fleet shows its tokens many times a second, and auth.* must keep
        users' logins and all refusals visible.
        """
        actor = facts.get("actor")
        if actor is not None and actor.type == "device":
            return self._make("device.authenticated", "debug", "device let in", facts)
        return self._make("auth.login_success", "info", "caller let in", facts)

    def failure(self, *, reason: str, **facts: Unpack[Facts]) -> AuditEvent:
        """Return the event of a refused caller; the reason chooses login_failure, forbidden or rate_limited."""
        event_type = _REFUSAL_TYPES.get(reason, "auth.login_failure")
        return self._make(event_type, "warning", f"caller turned away: {reason}", facts, {"reason": reason})

    def token_refresh(self, **facts: Unpack[Facts]) -> AuditEvent:
        """Return the event of an access token issued for a refresh token."""
        return self._make("auth.token_refresh", "info", "caller got a fresh session", facts)

    def device_rejected(self, *, reasons: Mapping[str, int], **facts: Unpack[Facts]) -> AuditEvent:
        """Return the event of readings refused before they reached the database. reasons: count by reason."""
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
    """Return the account of a device, or of the whole fleet if the token names no known device."""
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


class Pseudonyms:
    """Makes pseudonyms of accounts whose ownership is unproven.

    They are keyed: without the key, no list of names can be tried against the rows.
    """

    def __init__(self, key: bytes) -> None:
        self._key = key

    def of(self, account: str) -> str:
        """Return acct_ and 32 hex digits of HMAC-SHA256, the same for the same account and key."""
        return "acct_" + hmac.digest(self._key, account.encode("utf-8", "replace"), "sha256").hex()[:32]


def read_key(file: Path) -> bytes:
    """Return the key in the file, which is made if there is none. Two processes at once get the same key."""
    try:
        key = write_once(file, secrets.token_hex(32).encode()).strip()
        if len(key) >= _SHORTEST_KEY:
            return key
        log.error("the key of the audit pseudonyms in %s is too short: a temporary key is used", file)
    except OSError as error:
        log.error(  # noqa: TRY400  # an operator needs no traceback
            "no key of the audit pseudonyms in %s: %s; a temporary key is used", file, error.strerror or error
        )
    return secrets.token_bytes(32)
