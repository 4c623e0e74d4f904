"""Notification channels: /api/v1/channels. Secrets can be written and are never shown."""

from datetime import datetime
from typing import Annotated, Any, Literal, Union, get_type_hints

from fastapi import APIRouter, Body, Query
from pydantic import BaseModel, SecretStr, create_model

from services.shared.channels import KINDS, ChannelConfig, new_secret
from services.shared.destination import destination_fault
from services.ui_iot.auth.guard import ADMINS, READERS, GuardedRoute, allow
from services.ui_iot.auth.request_context import Caller
from services.ui_iot.backend import Api
from services.ui_iot.http.problems import Unprocessable
from services.ui_iot.openapi import problems
from services.ui_iot.resources.change import Acting, Changing, Creating
from services.ui_iot.resources.channel_sealing import seal_changes, seal_new
from services.ui_iot.resources.entity_tags import Versioned
from services.ui_iot.resources.fields import Flag, Name, PathId, QueryFlag, changes, example, shown, unset
from services.ui_iot.resources.paging import PageQuery
from services.ui_iot.resources.resource import Resource

router = APIRouter(prefix="/api/v1/channels", tags=["channels"], route_class=GuardedRoute)

_SHOWN: dict[str, Any] = {
    "channel_id": 3,
    "name": "On call",
    "kind": "webhook",
    "config": {"url": "https://hooks.example.com/… (3f9a1c2b)"},
    "enabled": True,
    "disabled_reason": None,
    "paused_until": "2026-01-05T12:01:00Z",
    "paused_because": "HTTP 429: slow down",
    "last_success_at": "2026-01-05T11:59:30Z",
    "last_error_at": "2026-01-05T12:00:00Z",
    "last_error": "HTTP 429: slow down",
    "created_at": "2026-01-01T09:00:00Z",
    "updated_at": "2026-01-01T09:00:00Z",
}


_EXAMPLES: dict[str, dict[str, Any]] = {
    kind: {"name": f"{known.title} on call", "kind": kind, "config": known.example} for kind, known in KINDS.items()
}
_CHANGES: dict[str, Any] = {
    "config": {"url": "https://hooks.example.com/pulse-2", "secret": "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz"},
    "enabled": True,
}


Kind: Any = Literal[tuple(KINDS)]


class _NewChannel(BaseModel):
    name: Name
    enabled: Flag = True


def _new(kind: str) -> type[_NewChannel]:
    """Return the model of a channel to be created: the same for each kind but for its configuration."""
    known = KINDS[kind]
    literal: Any = Literal[kind]
    return create_model(
        f"New{known.title}",
        __base__=_NewChannel,
        __cls_kwargs__=dict(example(**_EXAMPLES[kind])),
        __doc__=f"A {known.title} channel to create.",
        kind=(literal, ...),
        config=(known.config, ...),
    )


NewChannel: Any = Annotated[
    Union[tuple(map(_new, KINDS))],  # noqa: UP007  # of a computed tuple
    Body(discriminator="kind", openapi_examples={kind: {"value": value} for kind, value in _EXAMPLES.items()}),
]


def _members() -> dict[str, Any]:
    """Return the members that the configuration of any kind may have, each of which may be left out."""
    models = [known.config for known in list(KINDS.values())[::-1]]
    return {
        name: (hint, unset()) for model in models for name, hint in get_type_hints(model, include_extras=True).items()
    }


ConfigChanges = create_model("ConfigChanges", __base__=ChannelConfig, **_members())


def _check_destination(url: SecretStr | None, *, allow_private: bool) -> None:
    """Refuse early what the delivery worker would refuse at every attempt; it checks the address again, resolved."""
    fault = None if url is None else destination_fault(url.get_secret_value(), allow_private=allow_private)
    if fault is not None:
        raise Unprocessable(f"config.url {fault}.")


class ChannelChanges(BaseModel):
    """Changes of a channel. Omitted members stay, those of config unless the url changes. The kind cannot change."""

    model_config = example(**_CHANGES)
    name: Name = unset()
    config: ConfigChanges = unset()  # type: ignore[valid-type]  # it is computed
    enabled: Flag = unset()


SentChanges = Annotated[ChannelChanges, Body(openapi_examples={"move": {"value": _CHANGES}})]


class Channel(Versioned):
    """A channel, without its secrets."""

    model_config = shown(**_SHOWN)
    version = ("name", "kind", "config", "enabled", "updated_at")
    channel_id: int
    name: str
    kind: str
    config: dict[str, str]
    """The address as scheme, host and a fingerprint of the rest, which is secret."""
    enabled: bool
    disabled_reason: str | None
    """The reason if Pulse disabled the channel; null if a person did."""
    paused_until: datetime | None
    """End of a pause that the receiver asked for, or null. Nothing is sent before."""
    paused_because: str | None
    last_success_at: datetime | None
    last_error_at: datetime | None
    last_error: str | None
    created_at: datetime
    updated_at: datetime


_RESOURCE = Resource("channel", Channel, view="channels", key="channel_id")


class NewlyMadeChannel(Channel):
    """A created channel, with the secret that Pulse generated."""

    model_config = shown(**_SHOWN, secret="whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=")  # noqa: S106  # an example
    once = ("secret",)
    secret: str | None = None
    """Key of the requests' signatures. Present only if Pulse generated it, and only in this answer."""


class ChannelQuery(PageQuery):
    """Filters of the list of channels."""

    kind: Kind | None = None
    """Only channels of this kind."""
    enabled: QueryFlag | None = None
    """Only enabled, or only disabled, channels."""


@router.get("", response_model=_RESOURCE.page, responses=problems(), openapi_extra=allow(READERS))
async def list_channels(api: Api, caller: Caller, query: Annotated[ChannelQuery, Query()]) -> dict[str, Any]:
    """List channels in the order of their creation."""
    return await api.page(caller, _RESOURCE, query)


@router.post(
    "",
    status_code=201,
    response_model=NewlyMadeChannel,
    response_model_exclude_unset=True,
    responses=problems(409, 413),
    openapi_extra=allow(ADMINS),
)
async def create_channel(change: Creating, body: NewChannel) -> Any:
    """Create a channel. Routes and escalation policies send alerts to it.

    If the secret of a webhook is omitted, Pulse generates one and shows it only in this answer.
    """
    _check_destination(body.config.url, allow_private=change.api.settings.allow_private_destinations)
    made = body.model_dump(exclude_unset=True) | {"config": body.config.revealed()}
    once = {}
    if "secret" in type(body.config).model_fields and body.config.secret is None:
        made["config"]["secret"] = once["secret"] = new_secret()
    body_made = seal_new(change.api.settings.secrets_key_file, change.caller.tenant_id, made)
    return await change.create(_RESOURCE, "select delivery.create_channel($1)", body_made, once=once)


@router.get("/{channel_id}", response_model=Channel, responses=problems(404), openapi_extra=allow(READERS))
async def get_channel(api: Api, caller: Caller, channel_id: PathId) -> dict[str, Any]:
    """Return a channel."""
    return await api.find(caller, _RESOURCE, channel_id)


@router.patch("/{channel_id}", response_model=Channel, responses=problems(404, 409, 413), openapi_extra=allow(ADMINS))
async def update_channel(change: Changing, channel_id: PathId, body: SentChanges) -> Any:
    """Change a channel. Send only the members of `config` that change.

    A new `config.url` replaces the whole config and needs the channel's `secret` or `routing_key` in the same request.
    A new config, and enabling the channel, end a pause.
    """
    patch = changes(body)
    if body.config is not None:
        _check_destination(body.config.url, allow_private=change.api.settings.allow_private_destinations)
        patch["config"] = body.config.revealed()
    sealed = seal_changes(change.api.settings.secrets_key_file, change.caller.tenant_id, channel_id, patch)
    return await change.apply(_RESOURCE, channel_id, "select delivery.update_channel($1, $2)", sealed)


@router.post("/{channel_id}/resume", response_model=Channel, responses=problems(404, 409), openapi_extra=allow(ADMINS))
async def resume_channel(change: Acting, channel_id: PathId) -> Any:
    """End a pause that the receiver asked for. Waiting notifications are sent at once."""
    return await change.apply(_RESOURCE, channel_id, "select delivery.resume_channel($1)")


@router.delete("/{channel_id}", status_code=204, responses=problems(404, 409), openapi_extra=allow(ADMINS))
async def delete_channel(change: Changing, channel_id: PathId) -> None:
    """Delete a channel. A channel that routes or escalation policies use cannot be deleted."""
    await change.apply(_RESOURCE, channel_id, "select delivery.delete_channel($1)")
