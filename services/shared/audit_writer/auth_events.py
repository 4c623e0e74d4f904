"""The events of authentication: what each kind is called, and what of a request stands in it."""

from collections.abc import Callable, Mapping
from ipaddress import IPv4Address, IPv6Address
from typing import Any, Final, TypedDict, Unpack

from services.shared import db
from services.shared.audit_writer.event import AuditEvent

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
