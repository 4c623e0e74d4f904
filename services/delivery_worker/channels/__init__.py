"""The channels: one module a kind, with a pure render() and a send() that returns how the attempt ended."""

from collections.abc import Awaitable, Mapping
from datetime import datetime
from importlib import import_module
from types import MappingProxyType
from typing import Any, Protocol

import httpx
from pydantic import ValidationError

from services.delivery_worker.channels.outcome import Outcome, Refused
from services.delivery_worker.notification import Notification
from services.shared.channels import KINDS


class Send(Protocol):
    """The function `send` of a channel's module; config is of the model that KINDS names for the kind."""

    def __call__(
        self,
        client: httpx.AsyncClient,
        config: Any,
        notification: Notification,
        /,
        *,
        idempotency_key: str,
        sent_at: datetime,
    ) -> Awaitable[Outcome]:
        """Send one notification once."""


CHANNELS: Mapping[str, Send] = MappingProxyType({kind: import_module(f"{__name__}.{kind}").send for kind in KINDS})


async def send(
    kind: str,
    client: httpx.AsyncClient,
    config: Mapping[str, Any],
    notification: Notification,
    *,
    idempotency_key: str,
    sent_at: datetime,
    allow_private: bool,
) -> Outcome:
    """Send one notification once over a channel; a kind or configuration that cannot work is Refused."""
    if kind not in CHANNELS:
        return Refused(f"there is no channel of kind {kind}")
    try:
        parsed = KINDS[kind].config.model_validate(config, context={"allow_private": allow_private})
    except ValidationError as error:
        return Refused(f"the channel's configuration cannot work: {faults(error)}")
    return await CHANNELS[kind](client, parsed, notification, idempotency_key=idempotency_key, sent_at=sent_at)


def faults(error: ValidationError) -> str:
    """Return what is wrong with which member, without the values."""
    found = error.errors(include_url=False, include_input=False, include_context=False)
    return "; ".join(f"{'.'.join(str(part) for part in fault['loc'])}: {fault['msg']}" for fault in found)
