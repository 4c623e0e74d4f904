"""Texts of the channels that people read."""

from decimal import Decimal

from services.delivery_worker.notification import Notification
from services.shared.visible_text import printable

_KINDS = {
    "opened": "Opened",
    "acknowledged": "Acknowledged",
    "escalated": "Escalated",
    "updated": "Updated",
    "closed": "Closed",
}


def clip(text: str, limit: int) -> str:
    """Return at most limit characters, with an ellipsis if the text was cut."""
    return text if len(text) <= limit else text[: max(limit - 1, 0)] + "…"


def headline(notification: Notification) -> str:
    """Return the event in one line: "Closed · critical · too hot · Boiler 1"."""
    alert = notification.alert
    about = alert.device_name or alert.device_id
    named = (_KINDS[notification.kind], alert.severity, alert.rule_name, *((about,) if about else ()))
    return " · ".join(printable(name) for name in named)


def number_text(value: float) -> str:
    """Return a number in decimal notation with every significant digit: 1000001 instead of 1e+06."""
    if value == 0:
        return "0"
    return f"{Decimal(repr(value)).normalize():f}" if 1e-6 <= abs(value) < 1e21 else repr(value)


def facts(notification: Notification) -> list[tuple[str, str]]:
    """Return the known details as pairs of name and value."""
    alert = notification.alert
    value = number_text(alert.value) if alert.value is not None else None
    named = [
        ("Device", alert.device_id),
        (alert.metric or "Value", value),
        ("Opened at", alert.opened_at.isoformat()),
        ("Acknowledged by", alert.acknowledged_by),
        ("Escalation step", str(notification.step_number) if notification.step_number is not None else None),
        ("Closed at", alert.closed_at.isoformat() if alert.closed_at else None),
        ("Closed because", alert.close_reason),
        ("Alert", str(alert.alert_id)),
    ]
    cleaned = [(printable(name) or "Value", printable(value)) for name, value in named if value]
    return [(name, value) for name, value in cleaned if value]
