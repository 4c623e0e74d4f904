"""The checked payload of a notification job."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict

from services.shared.visible_text import printable

Kind = Literal["opened", "acknowledged", "escalated", "updated", "closed"]
Severity = Literal["info", "warning", "error", "critical"]
Text = Annotated[str, AfterValidator(printable)]
"""Text from users, devices or tokens, reduced to one line without invisible or reordering characters."""


class NotifiedAlert(BaseModel):
    """The alert at the time of the event."""

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    alert_id: int
    fingerprint: str
    rule_id: int | None = None
    rule_name: Text
    device_id: Text | None = None
    device_name: Text | None = None
    metric: Text | None = None
    severity: Severity
    status: Literal["open", "acknowledged", "closed"]
    message: Text
    value: float | None = None
    opened_at: datetime
    closed_at: datetime | None = None
    close_reason: Text | None = None
    acknowledged_by: Text | None = None


class Notification(BaseModel):
    """One alert event for one channel. occurred_at: its time by the clock of the device."""

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    kind: Kind
    tenant_id: str
    event_id: int
    alert: NotifiedAlert
    occurred_at: datetime
    step_number: int | None = None
    dedup_key: str | None = None
    """Key of the alert's incident, unique across installations."""
    trace_id: str | None = None
