"""Whom a token that was not accepted claims to belong to: nothing in it is proven, all of it may be hostile."""

import base64

import orjson

from services.shared.audit import device_account
from services.ui_iot.claims import LONGEST_SUBJECT
from services.ui_iot.device_tokens import PREFIX, claimed_tenant

# The most that PULSE_OIDC_MAX_TOKEN_BYTES allows: padding must not hide the account that a checked token names.
_LONGEST_TOKEN_BYTES = 32_768


def claimed_account(token: str) -> str | None:
    """The subject of a JWT, or the fleet of a device token; None when it names none."""
    if token.startswith(PREFIX):
        tenant_id = claimed_tenant(token)
        return None if tenant_id is None else device_account(tenant_id)
    if len(token) > _LONGEST_TOKEN_BYTES or token.count(".") != 2:
        return None
    payload = token.split(".")[1]
    try:
        claims = orjson.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    except ValueError:
        return None
    subject = claims.get("sub") if isinstance(claims, dict) else None
    return subject if isinstance(subject, str) and 0 < len(subject) <= LONGEST_SUBJECT else None
