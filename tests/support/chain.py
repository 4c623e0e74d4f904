"""One reading from the request to the signed webhook: its settings, secret and token."""

import base64
import hashlib
import hmac
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.support.receiver import Request

TRACE = "0af7651916cd43dd8448eb211c80319c"


SECRET = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz"


TOKEN = "pdt_acme_" + "t" * 43


SETTINGS = {
    "allow_private_destinations": "true",
    "delivery_lease_seconds": "2",
    "delivery_timeout_seconds": "0.9",
    "poll_seconds": "0.5",
    "auth_rate_limit_per_minute": "0",
}


def is_signed(got: Request) -> bool:
    """Return whether one signature is that of id, timestamp and body under the secret (Standard Webhooks)."""
    key = base64.b64decode(SECRET.removeprefix("whsec_"))
    signed = f"{got.header('webhook-id')}.{got.header('webhook-timestamp')}.".encode() + got.body
    expected = "v1," + base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()
    return expected in str(got.header("webhook-signature")).split(" ")


def reading(value: float, *, seconds_ago: float = 0) -> dict[str, Any]:
    """Return a reading of the device."""
    at = datetime.now(UTC) - timedelta(seconds=seconds_ago)
    return {"device_id": "boiler-1", "metric": "temperature", "value": value, "timestamp": at.isoformat()}
