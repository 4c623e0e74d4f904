"""Notifications as the dispatcher makes them."""

from typing import Any
from uuid import UUID

from services.delivery_worker.notification import Notification

KEY = str(UUID("01890a5d-ac96-774b-bcce-b302099a8057"))


def payload(kind: str = "opened", *, alert: dict[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
    """Return the payload of a job. alert: members of the alert that differ from the default."""
    closed = kind == "closed"
    members = {
        "alert_id": 7,
        "fingerprint": "rule:3:boiler-1",
        "rule_id": 3,
        "rule_name": "too hot",
        "device_id": "boiler-1",
        "device_name": "Boiler 1",
        "metric": "temperature",
        "severity": "critical",
        "status": "closed" if closed else "acknowledged" if kind == "acknowledged" else "open",
        "message": "temperature is 93.5, over 80",
        "value": 93.5,
        "opened_at": "2026-01-05T12:00:00+00:00",
        "closed_at": "2026-01-05T12:05:00+00:00" if closed else None,
        "close_reason": "resolved" if closed else None,
        "acknowledged_by": "ann" if kind == "acknowledged" else None,
    }
    return {
        "kind": kind,
        "tenant_id": "acme",
        "event_id": 11,
        "alert": members | (alert or {}),
        "occurred_at": "2026-01-05T12:00:00+00:00",
        "step_number": 2 if kind == "escalated" else None,
        "trace_id": "a" * 32,
    } | fields


def notification(kind: str = "opened", *, alert: dict[str, Any] | None = None, **fields: Any) -> Notification:
    """Return the payload as a Notification."""
    return Notification.model_validate(payload(kind, alert=alert, **fields))
