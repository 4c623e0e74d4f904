"""Signed requests to a customer's server by Standard Webhooks (https://www.standardwebhooks.com)."""

import base64
import hashlib
import hmac
from collections.abc import Sequence
from datetime import datetime

import httpx
import orjson

from services.delivery_worker.channels.outcome import Outcome
from services.delivery_worker.channels.request import Parts, post
from services.delivery_worker.notification import Notification
from services.shared.channels import WebhookConfig, signing_key


def sign(keys: Sequence[bytes], *, message_id: str, timestamp: int, body: bytes) -> str:
    """Return the webhook-signature header: one v1 signature for each key, separated by spaces."""
    signed = f"{message_id}.{timestamp}.".encode() + body
    digests = (hmac.new(key, signed, hashlib.sha256).digest() for key in keys)
    return " ".join("v1," + base64.b64encode(digest).decode() for digest in digests)


def render(notification: Notification, config: WebhookConfig, *, idempotency_key: str, sent_at: datetime) -> Parts:
    """Return the request. Between attempts, only its timestamp and signature differ."""
    body = orjson.dumps(
        {
            "type": f"alert.{notification.kind}",
            "timestamp": notification.occurred_at,
            "data": notification.model_dump(mode="json"),
        }
    )
    timestamp = int(sent_at.timestamp())
    keys = [signing_key(secret.get_secret_value()) for secret in (config.secret, *config.previous_secrets)]
    return Parts(
        url=config.url.get_secret_value(),
        body=body,
        headers={
            "content-type": "application/json",
            "webhook-id": idempotency_key,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": sign(keys, message_id=idempotency_key, timestamp=timestamp, body=body),
        },
    )


async def send(
    client: httpx.AsyncClient,
    config: WebhookConfig,
    notification: Notification,
    *,
    idempotency_key: str,
    sent_at: datetime,
) -> Outcome:
    """Send one notification. The receiver drops repeats by webhook-id."""
    parts = render(notification, config, idempotency_key=idempotency_key, sent_at=sent_at)
    return await post(client, parts, secrets=config.secrets(), sent_at=sent_at)
