"""API tokens of devices: pdt_<tenant>_<secret>."""

import asyncpg

from services.shared.db import Actor
from services.ui_iot.auth.principal import Principal
from services.ui_iot.auth.refusals import Refusal
from services.ui_iot.auth.stored_tokens import StoredTokens


class DeviceTokens(StoredTokens):
    """Finds the device that a token belongs to."""

    prefix = "pdt_"
    query = "select place, device_id, device_name, is_gateway, enabled from ingest.authenticate_devices($1, $2)"
    malformed = Refusal("invalid_token", "The device token is malformed.")
    unknown = Refusal("invalid_token", "No device has this token.")

    def judge(self, tenant_id: str, row: asyncpg.Record) -> Principal | Refusal:
        """Return the device, or the refusal of a disabled one."""
        actor = Actor("device", row["device_id"], row["device_name"])
        if not row["enabled"]:
            return Refusal("forbidden", "The device is disabled.", tenant_id=tenant_id, actor=actor)
        return Principal(tenant_id, "device", actor, is_gateway=row["is_gateway"])
