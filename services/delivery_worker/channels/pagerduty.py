"""Events for PagerDuty's Events API v2: trigger, acknowledge and resolve. Each alert is one incident."""

from datetime import datetime

import httpx
import orjson

from services.delivery_worker.channels.answers import is_failure
from services.delivery_worker.channels.outcome import Outcome, Verdict
from services.delivery_worker.channels.request import Parts, post
from services.delivery_worker.channels.wording import clip, headline
from services.delivery_worker.notification import Kind, Notification
from services.shared.channels import PagerDutyConfig
from services.shared.visible_text import printable

EVENTS_URL = "https://events.pagerduty.com/v2/enqueue"
# Limits of the Events API v2 reference, in characters.
_SUMMARY = 1024
_DEDUP_KEY = 255
# Single fields have no documented limit. An event may have 512,000 bytes.
_TEXT = 1024

# An escalation or a change of the rule triggers the same incident again: PagerDuty adds it to the log of the incident.
_ACTIONS: dict[Kind, str] = {
    "opened": "trigger",
    "escalated": "trigger",
    "updated": "trigger",
    "acknowledged": "acknowledge",
    "closed": "resolve",
}


def dedup_key(notification: Notification) -> str:
    """Return the key of the incident: the same for all notifications of an alert, unique among all alerts.

    The dispatcher sets it. Older jobs, made before it did, have the key with which their incident was opened.
    """
    key = notification.dedup_key or f"pulse/{notification.tenant_id}/{notification.alert.alert_id}"
    return key[:_DEDUP_KEY]


def _payload(notification: Notification) -> dict[str, object]:
    alert = notification.alert
    details = alert.model_dump(mode="json", include={"fingerprint", "rule_id", "metric", "value", "message"})
    shown = {"trace_id": notification.trace_id, "step_number": notification.step_number, **details}
    return {
        "summary": clip(f"{headline(notification)}: {printable(alert.message)}", _SUMMARY),
        "source": clip(printable(alert.device_id or "") or "pulse", _TEXT),
        "severity": alert.severity,  # PagerDuty's four are ours
        "timestamp": alert.opened_at.isoformat(),
        "component": clip(printable(alert.metric), _TEXT) if alert.metric else None,
        "class": clip(printable(alert.rule_name), _TEXT),
        "custom_details": {
            name: clip(printable(value), _TEXT) if isinstance(value, str) else value for name, value in shown.items()
        },
    }


def render(notification: Notification, config: PagerDutyConfig) -> Parts:
    """Return the request. Only a trigger describes the incident."""
    action = _ACTIONS[notification.kind]
    event: dict[str, object] = {
        "routing_key": config.routing_key.get_secret_value(),
        "event_action": action,
        "dedup_key": dedup_key(notification),
    }
    if action == "trigger":
        event |= {"client": "Pulse", "payload": _payload(notification)}
    headers = {"content-type": "application/json"}
    url = config.url.get_secret_value() if config.url is not None else EVENTS_URL
    return Parts(url=url, body=orjson.dumps(event), headers=headers)


def judge(status_code: int, text: str) -> Verdict | None:
    """Return the verdict on an answer: a 2xx that reports an error is retried."""
    return "retry" if 200 <= status_code < 300 and is_failure(text) else None


async def send(
    client: httpx.AsyncClient,
    config: PagerDutyConfig,
    notification: Notification,
    *,
    idempotency_key: str,  # noqa: ARG001  # the dedup key makes a repeat harmless
    sent_at: datetime,
) -> Outcome:
    """Send one notification. 202 means accepted, not processed."""
    return await post(client, render(notification, config), secrets=config.secrets(), sent_at=sent_at, judge=judge)
