"""An Adaptive Card for Microsoft Teams, through a workflow that posts what its webhook receives."""

import re
from datetime import datetime

import httpx
import orjson

from services.delivery_worker.channels.config import ChannelConfig, Url
from services.delivery_worker.channels.outcome import Outcome
from services.delivery_worker.channels.request import Parts, post
from services.delivery_worker.channels.wording import clip, facts, headline
from services.delivery_worker.notification import Notification

# Teams refuses messages over 28 KB.
LARGEST_BODY_BYTES = 28 * 1024
# Longest text in the card, tried in turn until the card fits.
_TEXT_LIMITS = (4000, 1000, 250, 60)

_COLOURS = {"info": "accent", "warning": "warning", "error": "attention", "critical": "attention"}
_MARKDOWN = re.compile(r"([\\`*_\[\]()#~<>])")


class Config(ChannelConfig):
    """The address of the workflow."""

    url: Url


def escape(text: str) -> str:
    """The text with the marks of Markdown made harmless, so that no name turns into a link."""
    return _MARKDOWN.sub(r"\\\1", text)


def _card(notification: Notification, limit: int) -> dict[str, object]:
    alert = notification.alert
    colour = "good" if notification.kind == "closed" else _COLOURS[alert.severity]
    title = {"type": "TextBlock", "size": "Medium", "weight": "Bolder", "wrap": True, "color": colour}
    return {
        "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
        "type": "AdaptiveCard",
        "version": "1.4",
        "msteams": {"width": "Full"},
        "body": [
            {**title, "text": escape(clip(headline(notification), limit))},
            {"type": "TextBlock", "wrap": True, "text": escape(clip(alert.message, limit))},
            {
                "type": "FactSet",
                "facts": [
                    {"title": escape(clip(name, limit)), "value": escape(clip(value, limit))}
                    for name, value in facts(notification)
                ],
            },
        ],
    }


def render(notification: Notification, config: Config) -> Parts:
    """The request: the card as the one attachment of a message."""
    body = b""
    for limit in _TEXT_LIMITS:
        attachment = {
            "contentType": "application/vnd.microsoft.card.adaptive",
            "contentUrl": None,
            "content": _card(notification, limit),
        }
        body = orjson.dumps({"type": "message", "attachments": [attachment]})
        if len(body) <= LARGEST_BODY_BYTES:
            break
    return Parts(url=config.url.get_secret_value(), body=body, headers={"content-type": "application/json"})


async def send(
    client: httpx.AsyncClient,
    config: Config,
    notification: Notification,
    *,
    idempotency_key: str,  # noqa: ARG001  # Teams knows none: after a crash in mid-send a message may come twice
    sent_at: datetime,
) -> Outcome:
    """Send one notification; 202 means that the workflow was started, not that its card was posted."""
    return await post(client, render(notification, config), secrets=config.secrets(), sent_at=sent_at)
