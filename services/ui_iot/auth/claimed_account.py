"""The account that a refused token names: nothing in the token is proven, all of it may be hostile."""

import base64

import orjson

from services.shared.audit import device_account
from services.ui_iot.auth.api_keys import ApiKeys
from services.ui_iot.auth.claims import LONGEST_SUBJECT
from services.ui_iot.auth.device_tokens import DeviceTokens

# The most that PULSE_OIDC_MAX_TOKEN_BYTES allows: padding must not hide the account that a checked token names.
_LONGEST_TOKEN_BYTES = 32_768


def claimed_account(token: str) -> str | None:
    """Return the subject of a JWT, the fleet of a device token or the keys of a tenant; None when it names none."""
    if token.startswith(DeviceTokens.prefix):
        device = DeviceTokens.form.fullmatch(token)
        return None if device is None else device_account(device[1])
    if token.startswith(ApiKeys.prefix):
        key = ApiKeys.form.fullmatch(token)
        return None if key is None else f"api-key:{key[1]}"
    if len(token) > _LONGEST_TOKEN_BYTES or token.count(".") != 2:
        return None
    payload = token.split(".")[1]
    try:
        claims = orjson.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    except ValueError:
        return None
    subject = claims.get("sub") if isinstance(claims, dict) else None
    return subject if isinstance(subject, str) and 0 < len(subject) <= LONGEST_SUBJECT else None
