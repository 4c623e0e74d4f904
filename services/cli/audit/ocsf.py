"""Audit events in the Open Cybersecurity Schema Framework (OCSF), for a SIEM."""

import math
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final, NamedTuple

VERSION: Final = "1.8.0"
"""Version of the schema."""

_SEVERITIES: Final = {
    "debug": (1, "Informational"),
    "info": (1, "Informational"),
    "warning": (3, "Medium"),
    "error": (4, "High"),
    "critical": (5, "Critical"),
}
_STATUSES: Final = {0: "Unknown", 1: "Success", 2: "Failure"}
_METHODS: Final = frozenset(("OPTIONS", "GET", "HEAD", "POST", "PUT", "DELETE", "TRACE", "CONNECT", "PATCH"))
_USER_TYPES: Final = {"user": (1, "User"), "service": (4, "Service"), "device": (99, "Device")}
# Columns that have a place in every class. The others keep their names in unmapped.
_MAPPED: Final = frozenset(
    (
        "timestamp",
        "recorded_at",
        "event_id",
        "event_type",
        "category",
        "action",
        "tenant_id",
        "severity",
        "message",
        "trace_id",
        "xid",
    )
)


class _Class(NamedTuple):
    uid: int
    name: str
    category_uid: int
    category: str


class _Activity(NamedTuple):
    number: int
    name: str
    status: int = 1


_AUTHENTICATION: Final = _Class(3002, "Authentication", 3, "Identity & Access Management")
_ENTITY_MANAGEMENT: Final = _Class(3004, "Entity Management", 3, "Identity & Access Management")
_API_ACTIVITY: Final = _Class(6003, "API Activity", 6, "Application Activity")
_BASE_EVENT: Final = _Class(0, "Base Event", 0, "Uncategorized")

_AUTHENTICATIONS: Final = {
    "auth.login_success": _Activity(1, "Logon"),
    "auth.login_failure": _Activity(1, "Logon", 2),
    "auth.forbidden": _Activity(1, "Logon", 2),
    "auth.rate_limited": _Activity(1, "Logon", 2),
    "auth.token_refresh": _Activity(5, "Service Ticket Renew"),
    "device.authenticated": _Activity(1, "Logon"),
}
_CHANGES: Final = {
    "created": _Activity(1, "Create"),
    "updated": _Activity(3, "Update"),
    "deleted": _Activity(4, "Delete"),
}


def to_ocsf(event: Mapping[str, Any]) -> dict[str, Any]:
    """Return an OCSF event. event: a row of audit_log as JSON. Every auth.* becomes an Authentication."""
    event_type: str = event["event_type"]
    category, _, action = event_type.partition(".")
    if category == "auth" or event_type in _AUTHENTICATIONS:
        # Other events, such as a suspected attack, have a status that only their message describes.
        activity = _AUTHENTICATIONS.get(event_type) or _other(action, status=0)
        return _put_together(event, _AUTHENTICATION, activity, _authentication(event))
    if category in ("config", "rule") or (
        category == "device" and action.startswith(("created", "updated", "deleted"))
    ):
        activity = _CHANGES.get(action.rpartition("_")[2]) or _other(action)
        return _put_together(event, _ENTITY_MANAGEMENT, activity, _entity_management(event))
    if event_type == "audit.read":
        return _put_together(event, _API_ACTIVITY, _Activity(2, "Read"), _api_activity(event))
    return _put_together(event, _BASE_EVENT, _other(action, status=0), {})


def _other(action: str, *, status: int = 1) -> _Activity:
    return _Activity(99, action.replace("_", " ").title() or "Other", status)


def _put_together(
    event: Mapping[str, Any], ocsf_class: _Class, activity: _Activity, special: dict[str, Any]
) -> dict[str, Any]:
    """Join the members that all classes share with those of one class."""
    details = _details(event)
    severity_id, severity = _SEVERITIES.get(event["severity"], (0, "Unknown"))
    caption = "Other" if activity.number == 99 else activity.name
    return _without_nulls(
        {
            "activity_id": activity.number,
            "activity_name": activity.name,
            "category_uid": ocsf_class.category_uid,
            "category_name": ocsf_class.category,
            "class_uid": ocsf_class.uid,
            "class_name": ocsf_class.name,
            "type_uid": ocsf_class.uid * 100 + activity.number,
            "type_name": f"{ocsf_class.name}: {caption}",
            "severity_id": severity_id,
            "severity": severity,
            "status_id": activity.status,
            "status": _STATUSES[activity.status],
            "status_code": _text(details.get("reason")),
            "status_detail": event["message"] if activity.status == 2 else None,
            "message": event["message"],
            "time": _milliseconds(event["timestamp"]),
            "duration": _whole(event.get("duration_ms")),
            "metadata": _metadata(event, profiles=["trace"] if "trace" in special else None),
            "unmapped": {name: value for name, value in event.items() if name not in _MAPPED and value is not None},
            **_aggregate(details),
            **special,
        }
    )


def _metadata(event: Mapping[str, Any], *, profiles: list[str] | None) -> dict[str, Any]:
    return _without_nulls(
        {
            "version": VERSION,
            "product": {"name": "Pulse", "vendor_name": "Pulse"},
            "log_name": "audit_log",
            "uid": str(event["event_id"]),
            "event_code": event["event_type"],
            "tenant_uid": event["tenant_id"],
            "original_time": _iso(event["timestamp"]),
            "logged_time": _milliseconds(event.get("recorded_at")),
            "correlation_uid": event.get("trace_id"),
            "profiles": profiles,
        }
    )


def _authentication(event: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "user": _user(event),
        "service": {"name": event["source_service"] or "unknown"},
        "src_endpoint": _endpoint(event),
        "http_request": _http_request(event),
        "is_remote": True,
        "logon_type_id": 3,
        "logon_type": "Network",
    }


def _entity_management(event: Mapping[str, Any]) -> dict[str, Any]:
    entity = {
        "uid": event.get("entity_id"),
        "name": event.get("entity_name"),
        "type": event.get("entity_type"),
    }
    if not entity["uid"] and not entity["name"]:
        entity["name"] = event.get("entity_type") or "unknown"
    return {
        "entity": _without_nulls(entity),
        "actor": {"user": _user(event)},
        "src_endpoint": _endpoint(event),
        "comment": _text(_details(event).get("reason")),
    }


def _api_activity(event: Mapping[str, Any]) -> dict[str, Any]:
    trace_id = event.get("trace_id")
    return {
        "actor": {"user": _user(event)},
        "api": {"operation": event["event_type"], "service": {"name": event["source_service"] or "unknown"}},
        "src_endpoint": _endpoint(event) or {"svc_name": event["source_service"] or "unknown"},
        "http_request": _http_request(event),
        **({"trace": {"uid": trace_id}} if trace_id else {}),
    }


def _user(event: Mapping[str, Any]) -> dict[str, Any]:
    """Return the proven or claimed actor. A claimed account is a pseudonym; without any, the name is unknown."""
    type_id, type_name = _USER_TYPES.get(event.get("actor_type") or "", (0, "Unknown"))
    account = _text(_details(event).get("account"))
    user = {
        "uid": event.get("actor_id"),
        "name": event.get("actor_name"),
        "account": {"uid": account} if account else None,
        "type_id": type_id,
        "type": type_name,
    }
    if not (user["uid"] or user["name"] or user["account"]):
        user["name"] = "unknown"
    return _without_nulls(user)


def _endpoint(event: Mapping[str, Any]) -> dict[str, str] | None:
    address = event.get("ip_address")
    return {"ip": str(address).partition("/")[0]} if address else None


def _http_request(event: Mapping[str, Any]) -> dict[str, Any] | None:
    details = _details(event)
    method, path = _text(details.get("method")), _text(details.get("path"))
    request = {"http_method": method if method in _METHODS else None, "url": {"path": path} if path else None}
    return _without_nulls(request) or None


def _aggregate(details: Mapping[str, Any]) -> dict[str, int | None]:
    """Return the number of events that a row stands for, and the times of the first and the last."""
    count = details.get("count")
    if details.get("aggregated") is not True or type(count) is not int:
        return {}
    first_at, last_at = details.get("first_at"), details.get("last_at")
    return {"count": count, "start_time": _milliseconds(first_at), "end_time": _milliseconds(last_at)}


def _details(event: Mapping[str, Any]) -> Mapping[str, Any]:
    details = event.get("details")
    return details if isinstance(details, Mapping) else {}


def _iso(moment: datetime | str) -> str:
    return moment.isoformat() if isinstance(moment, datetime) else moment


def _milliseconds(moment: object) -> int | None:
    """Return milliseconds since 1970 of a time or its text, None if it is neither."""
    if isinstance(moment, str):
        try:
            moment = datetime.fromisoformat(moment)
        except ValueError:
            return None
    return math.floor(moment.timestamp() * 1000) if isinstance(moment, datetime) else None


def _whole(number: float | None) -> int | None:
    """Return the nearest whole number, None if it does not fit 64 bits."""
    return round(number) if number is not None and math.isfinite(number) and abs(number) < 2**63 else None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _without_nulls(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
