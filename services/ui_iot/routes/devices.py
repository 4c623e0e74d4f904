"""Devices: /api/v1/devices."""

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from services.ui_iot.auth.device_tokens import DeviceTokens
from services.ui_iot.auth.guard import ADMINS, READERS, GuardedRoute, allow
from services.ui_iot.auth.request_context import Caller
from services.ui_iot.backend import Api
from services.ui_iot.openapi import problems
from services.ui_iot.resources.change import Acting, Changing, Creating, ResourceChange
from services.ui_iot.resources.entity_tags import Versioned
from services.ui_iot.resources.fields import (
    DeviceId,
    Flag,
    Name,
    PathDeviceId,
    QueryFlag,
    Tag,
    Tags,
    changes,
    example,
    shown,
    unset,
)
from services.ui_iot.resources.paging import PageQuery
from services.ui_iot.resources.resource import Resource

router = APIRouter(prefix="/api/v1/devices", tags=["devices"], route_class=GuardedRoute)

_EXAMPLE: dict[str, Any] = {
    "device_id": "boiler-1",
    "name": "Boiler in the cellar",
    "tags": ["cellar", "boilers"],
    "is_gateway": False,
    "enabled": True,
}
_SHOWN: dict[str, Any] = {
    **_EXAMPLE,
    "has_token": True,
    "last_seen_at": "2026-01-05T12:00:00Z",
    "created_at": "2026-01-01T09:00:00Z",
    "updated_at": "2026-01-01T09:00:00Z",
}


class NewDevice(BaseModel):
    """A device to create."""

    model_config = example(**_EXAMPLE)
    device_id: DeviceId
    """The id that the device uses in its readings."""
    name: Name = unset()
    tags: Tags = []
    is_gateway: Flag = False
    """True if its token may send readings of the tenant's other devices."""
    enabled: Flag = True


class DeviceChanges(BaseModel):
    """Changes of a device. Omitted members stay as they are."""

    model_config = example(tags=["attic"], enabled=False)
    name: Name = unset()
    tags: Tags = unset()
    is_gateway: Flag = unset()
    enabled: Flag = unset()


class Device(Versioned):
    """A device."""

    model_config = shown(**_SHOWN)
    version = ("name", "tags", "is_gateway", "enabled", "has_token", "updated_at")
    device_id: str
    name: str
    tags: list[str]
    is_gateway: bool
    enabled: bool
    has_token: bool
    last_seen_at: datetime | None
    """Time at which the newest reading arrived."""
    created_at: datetime
    updated_at: datetime


class DeviceWithToken(Device):
    """A device with its token, which is shown only in this answer."""

    model_config = shown(**_SHOWN, token="pdt_acme_4f0ZkqYvXb1f9qJp8mQeWc2RkL7sTnU3aVdHgXyZiBo")  # noqa: S106  # an example
    once = ("token",)
    token: str


_RESOURCE = Resource("device", Device, view="devices", key="device_id")


class DeviceQuery(PageQuery):
    """Filters of the list of devices."""

    tag: Annotated[Tag | None, Field(description="Only devices with this tag.")] = None
    enabled: QueryFlag | None = None
    """Only enabled, or only disabled, devices."""
    is_gateway: QueryFlag | None = None
    """Only gateways, or only other devices."""


@router.get("", response_model=_RESOURCE.page, responses=problems(), openapi_extra=allow(READERS))
async def list_devices(api: Api, caller: Caller, query: Annotated[DeviceQuery, Query()]) -> dict[str, Any]:
    """List devices by `device_id`."""
    tagged = [] if query.tag is None else [_RESOURCE.view.c.tags.contains([query.tag])]
    return await api.page(caller, _RESOURCE, query, *tagged)


@router.post(
    "", status_code=201, response_model=DeviceWithToken, responses=problems(409, 413), openapi_extra=allow(ADMINS)
)
async def create_device(change: Creating, body: NewDevice) -> dict[str, Any]:
    """Create a device. Its token is shown only in this answer."""
    token, digest = DeviceTokens.make(change.caller.tenant_id)
    made = {**changes(body), "token_hash": digest.hex()}
    return await change.create(_RESOURCE, "select ingest.create_device($1)", made, once={"token": token})


@router.get("/{device_id}", response_model=Device, responses=problems(404), openapi_extra=allow(READERS))
async def get_device(api: Api, caller: Caller, device_id: PathDeviceId) -> dict[str, Any]:
    """Return a device."""
    return await api.find(caller, _RESOURCE, device_id)


@router.patch("/{device_id}", response_model=Device, responses=problems(404, 413), openapi_extra=allow(ADMINS))
async def update_device(change: Changing, device_id: PathDeviceId, body: DeviceChanges) -> Any:
    """Change a device.

    Disabling a device closes its alerts; its token and readings are then refused. The rules of an added tag are
    evaluated with the device's last known values. Removing a tag closes the alerts of the tag's rules.
    """
    device = await change.apply(_RESOURCE, device_id, "select ingest.update_device($1, $2)", changes(body))
    _forget_token(change, device_id)
    return device


@router.post("/{device_id}/token", response_model=DeviceWithToken, responses=problems(404), openapi_extra=allow(ADMINS))
async def rotate_device_token(change: Acting, device_id: PathDeviceId) -> dict[str, Any]:
    """Replace the token of a device. The old token stops working."""
    token, digest = DeviceTokens.make(change.caller.tenant_id)
    query = "select ingest.rotate_device_token($1, $2)"
    device = await change.apply(_RESOURCE, device_id, query, digest, once={"token": token})
    _forget_token(change, device_id)
    return device


@router.delete("/{device_id}", status_code=204, responses=problems(404), openapi_extra=allow(ADMINS))
async def delete_device(change: Changing, device_id: PathDeviceId) -> None:
    """Delete a device, close its alerts and disable its own rules.

    Its readings stay until their retention ends. A later device with the same `device_id` does not inherit them.
    """
    await change.apply(_RESOURCE, device_id, "select ingest.delete_device($1)")
    _forget_token(change, device_id)


def _forget_token(change: ResourceChange, device_id: str) -> None:
    change.api.authenticator.devices.forget(change.caller.tenant_id, device_id)
