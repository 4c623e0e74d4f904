"""Adaptive Cards for a workflow of Microsoft Teams that posts each request to its webhook."""

import re
from datetime import datetime

import httpx
import orjson

from services.delivery_worker.channels.answers import is_failure
from services.delivery_worker.channels.outcome import Outcome, Verdict
from services.delivery_worker.channels.request import Parts, post
from services.delivery_worker.channels.wording import clip, facts, headline
from services.delivery_worker.notification import Notification
from services.shared.channels import UrlConfig
from services.shared.visible_text import printable

# Teams refuses messages over 28 KB.
LARGEST_BODY_BYTES = 28 * 1024
# Limits of each text in the card, tried in turn until the card fits.
_TEXT_LIMITS = (4000, 1000, 250, 60)

_COLOURS = {"info": "accent", "warning": "warning", "error": "attention", "critical": "attention"}
# With braces: {{DATE(…)}} and {{TIME(…)}} are functions in the text of a card, and ${…} in its template.
_MARKDOWN = re.compile(r"([\\`*_\[\]()#~<>{}&|!])")
# Only the beginning of a text can be a list item, because texts have no line breaks.
_LIST_MARK = re.compile(r"^(\s*\d*)([-+.])(?=\s|$)")

# A status inside the text of a 200: "… Teams endpoint returned HTTP error 429 with …".
_INNER_STATUS = re.compile(r"HTTP error (\d{3})")


def escape(text: str) -> str:
    """Return the text with escaped marks of Markdown and of card functions."""
    return _LIST_MARK.sub(r"\1\\\2", _MARKDOWN.sub(r"\\\1", text))


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
            {"type": "TextBlock", "wrap": True, "text": escape(clip(printable(alert.message), limit))},
            {
                "type": "FactSet",
                "facts": [
                    {"title": escape(clip(name, limit)), "value": escape(clip(value, limit))}
                    for name, value in facts(notification)
                ],
            },
        ],
    }


def render(notification: Notification, config: UrlConfig) -> Parts:
    """Return the request: a message with the card as its attachment."""
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


def judge(status_code: int, text: str) -> Verdict | None:
    """Return the verdict on an answer. A workflow sends an empty 202, a connector a 200 with `1` or an error."""
    if not 200 <= status_code < 300 or not is_failure(text):
        return None
    inner = _INNER_STATUS.search(text)
    return "limited" if inner and inner[1] == "429" else "retry"


async def send(
    client: httpx.AsyncClient,
    config: UrlConfig,
    notification: Notification,
    *,
    idempotency_key: str,  # noqa: ARG001  # Teams has none: after a crash a message may arrive twice
    sent_at: datetime,
) -> Outcome:
    """Send one notification. 202 means that the workflow has started, not that its card was posted."""
    return await post(client, render(notification, config), secrets=config.secrets(), sent_at=sent_at, judge=judge)
