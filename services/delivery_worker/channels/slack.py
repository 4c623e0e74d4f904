"""Messages for an incoming webhook of Slack, as blocks of plain text.

Names come from outside. Slack interprets no formatting, mention or link in a plain_text object, so mrkdwn is not used.
"""

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

# Limits of Slack's Block Kit reference, in characters after escaping.
_HEADER = 150
_TITLE = 500
_SECTION = 3000
_FIELD = 2000
_FIELDS = 10
# Undocumented: a message with more than about 13,200 characters of text is refused (slackapi/bolt-js#2509).
_FACT = 600

_EMOJI = {"info": "🔵", "warning": "⚠️", "error": "🔴", "critical": "🚨"}

# Error texts of incoming webhooks, from Slack's documentation. An administrator can correct the other ones (no_service,
# invalid_token, channel_not_found, action_prohibited, …), so these follow their status and are retried.
_VERDICTS: dict[str, Verdict] = {
    **dict.fromkeys(
        ("invalid_payload", "invalid_blocks", "no_text", "too_many_attachments", "msg_too_long"), "refused"
    ),
    **dict.fromkeys(("channel_is_archived",), "gone"),
    **dict.fromkeys(("rate_limited", "ratelimited"), "limited"),
    "user_not_found": "retry",
}
_CODE = re.compile(r"[a-z]+(_[a-z]+)+")


def escape(text: str, limit: int) -> str:
    """Return the text with Slack's three control characters as entities, cut to limit characters."""
    escaped: list[str] = []
    length = 0
    for character in text:
        piece = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}.get(character, character)
        if length + len(piece) > limit - 1:
            return "".join(escaped) + "…"  # cut between characters, never inside an entity
        escaped.append(piece)
        length += len(piece)
    return "".join(escaped)


def _plain(text: str, limit: int) -> dict[str, object]:
    return {"type": "plain_text", "text": escape(text, limit), "emoji": False}


def render(notification: Notification, config: UrlConfig) -> Parts:
    """Return the request. Phones and screen readers show its text instead of the blocks."""
    alert = notification.alert
    emoji = "✅" if notification.kind == "closed" else _EMOJI[alert.severity]
    title = headline(notification)
    top = _plain(f"{emoji} {title}", _TITLE)
    # A header is bold, and short.
    top_block = "header" if len(str(top["text"])) <= _HEADER else "section"
    fields = [
        _plain(f"{clip(name, 100)}\n{clip(value, _FACT)}", _FIELD) for name, value in facts(notification)[:_FIELDS]
    ]
    blocks = [
        {"type": top_block, "text": top},
        {"type": "section", "text": _plain(printable(alert.message) or " ", _SECTION)},
        {"type": "section", "fields": fields},
    ]
    body = orjson.dumps({"text": escape(title, _TITLE), "mrkdwn": False, "blocks": blocks})
    return Parts(url=config.url.get_secret_value(), body=body, headers={"content-type": "application/json"})


def judge(status_code: int, text: str) -> Verdict | None:
    """Return the verdict on an answer: Slack sends `ok`, or an error code with any status."""
    if text in _VERDICTS:
        return _VERDICTS[text]
    is_accepted = 200 <= status_code < 300
    return "retry" if is_accepted and (_CODE.fullmatch(text) or is_failure(text)) else None


async def send(
    client: httpx.AsyncClient,
    config: UrlConfig,
    notification: Notification,
    *,
    idempotency_key: str,  # noqa: ARG001  # Slack has none: after a crash a message may arrive twice
    sent_at: datetime,
) -> Outcome:
    """Send one notification."""
    return await post(client, render(notification, config), secrets=config.secrets(), sent_at=sent_at, judge=judge)
