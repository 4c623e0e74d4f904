"""The channels: each a module with a Config, a pure render() and a send() that returns how the attempt ended."""

from collections.abc import Awaitable, Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Any, Protocol, TypeVar

import httpx
from pydantic import ValidationError

from services.delivery_worker.channels import pagerduty, slack, teams, webhook
from services.delivery_worker.channels.config import ChannelConfig
from services.delivery_worker.channels.outcome import Outcome, Refused
from services.delivery_worker.notification import Notification

ConfigT_contra = TypeVar("ConfigT_contra", bound=ChannelConfig, contravariant=True)
ModelT = TypeVar("ModelT", bound=ChannelConfig)


class Send(Protocol[ConfigT_contra]):
    """What a channel module offers."""

    def __call__(
        self,
        client: httpx.AsyncClient,
        config: ConfigT_contra,
        notification: Notification,
        /,
        *,
        idempotency_key: str,
        sent_at: datetime,
    ) -> Awaitable[Outcome]:
        """Send one notification once."""


class Channel(Protocol):
    """A send() that reads its own configuration."""

    def __call__(
        self,
        client: httpx.AsyncClient,
        config: Mapping[str, Any],
        notification: Notification,
        /,
        *,
        idempotency_key: str,
        sent_at: datetime,
        allow_private: bool,
    ) -> Awaitable[Outcome]:
        """Send one notification once; a configuration that cannot work is Refused."""


def _channel(model: type[ModelT], send: Send[ModelT]) -> Channel:
    async def deliver(
        client: httpx.AsyncClient,
        config: Mapping[str, Any],
        notification: Notification,
        /,
        *,
        idempotency_key: str,
        sent_at: datetime,
        allow_private: bool,
    ) -> Outcome:
        try:
            parsed = model.model_validate(config, context={"allow_private": allow_private})
        except ValidationError as error:
            return Refused(f"the channel's configuration cannot work: {faults(error)}")
        return await send(client, parsed, notification, idempotency_key=idempotency_key, sent_at=sent_at)

    return deliver


def faults(error: ValidationError) -> str:
    """What is wrong with which key, without what was given."""
    found = error.errors(include_url=False, include_input=False, include_context=False)
    return "; ".join(f"{'.'.join(str(part) for part in fault['loc'])}: {fault['msg']}" for fault in found)


CHANNELS: Mapping[str, Channel] = MappingProxyType(
    {
        "webhook": _channel(webhook.Config, webhook.send),
        "slack": _channel(slack.Config, slack.send),
        "teams": _channel(teams.Config, teams.send),
        "pagerduty": _channel(pagerduty.Config, pagerduty.send),
    }
)
