"""A message through an incoming webhook of Slack, as blocks."""

from datetime import datetime

import httpx
import orjson

from services.delivery_worker.channels.config import ChannelConfig, Url
from services.delivery_worker.channels.outcome import Outcome
from services.delivery_worker.channels.request import Parts, post
from services.delivery_worker.channels.wording import facts, headline
from services.delivery_worker.notification import Notification

# Limits of Slack's Block Kit reference, in characters after escaping.
_SECTION = 3000
_FIELD = 2000
_FIELDS = 10
# Not documented: a message whose text is over about 13,200 characters in all is refused (slackapi/bolt-js#2509).
_FACT = 600

_EMOJI = {
    "info": ":information_source:",
    "warning": ":warning:",
    "error": ":red_circle:",
    "critical": ":rotating_light:",
}


class Config(ChannelConfig):
    """The address that Slack gave for one of its channels."""

    url: Url


def escape(text: str, limit: int) -> str:
    """The text for mrkdwn, at most limit characters: no link and no <!channel> can come out of it."""
    escaped: list[str] = []
    length = 0
    for character in text:
        piece = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}.get(character, character)
        if length + len(piece) > limit - 1:
            return "".join(escaped) + "…"  # cut between characters, never inside an entity
        escaped.append(piece)
        length += len(piece)
    return "".join(escaped)


def render(notification: Notification, config: Config) -> Parts:
    """The request. text is what phones and screen readers show instead of the blocks."""
    alert = notification.alert
    emoji = ":white_check_mark:" if notification.kind == "closed" else _EMOJI[alert.severity]
    title = escape(headline(notification), 500)
    told = [
        {"type": "mrkdwn", "text": f"*{escape(name, 100)}*\n{escape(value, _FACT)}"[:_FIELD], "verbatim": True}
        for name, value in facts(notification)[:_FIELDS]
    ]
    blocks = [
        {"type": "section", "text": {"type": "mrkdwn", "text": f"{emoji} *{title}*", "verbatim": True}},
        {
            "type": "section",
            "text": {"type": "mrkdwn", "text": escape(alert.message or " ", _SECTION), "verbatim": True},
        },
        {"type": "section", "fields": told},
    ]
    body = orjson.dumps({"text": title, "blocks": blocks})
    return Parts(url=config.url.get_secret_value(), body=body, headers={"content-type": "application/json"})


async def send(
    client: httpx.AsyncClient,
    config: Config,
    notification: Notification,
    *,
    idempotency_key: str,  # noqa: ARG001  # Slack knows none: after a crash in mid-send a message may come twice
    sent_at: datetime,
) -> Outcome:
    """Send one notification."""
    return await post(client, render(notification, config), secrets=config.secrets(), sent_at=sent_at)
