"""What each channel sends, and what it refuses to be configured with; no network here."""

import base64
import hashlib
import hmac
import unicodedata
from datetime import UTC, datetime
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from services.delivery_worker.channels import faults, pagerduty, slack, teams, webhook
from services.delivery_worker.channels.config import ChannelConfig
from services.delivery_worker.channels.outcome import Delivered, Refused, Retry, classify, parse_retry_after
from services.delivery_worker.channels.request import tell
from services.delivery_worker.channels.wording import clip
from tests.notifications import KEY, notification

NOW = datetime(2026, 1, 5, 12, tzinfo=UTC)
SECRET = "whsec_" + base64.b64encode(b"0123456789abcdefghijklmn").decode()
OLD_SECRET = "whsec_" + base64.b64encode(b"z" * 64).decode()
ROUTING_KEY = "R0UT1NGKEYR0UT1NGKEYR0UT1NGKEY32"
KINDS = ("opened", "acknowledged", "escalated", "closed")
TEXTS = st.text(max_size=6000)


def parse(model: type[ChannelConfig], config: dict[str, Any], *, allow_private: bool = False) -> Any:
    return model.model_validate(config, context={"allow_private": allow_private})


WEBHOOK = parse(webhook.Config, {"url": "https://hooks.example/in", "secret": SECRET})
SLACK = parse(slack.Config, {"url": "https://hooks.slack.com/services/T00000000/B00000000/XXXXXXXXXXXX"})
TEAMS = parse(teams.Config, {"url": "https://example.webhook.office.com/workflows/0123456789abcdef?sig=verysecret"})
PAGERDUTY = parse(pagerduty.Config, {"routing_key": ROUTING_KEY})


def body_of(kind: str, **fields: Any) -> Any:
    return orjson.loads(pagerduty.render(notification(kind, **fields), PAGERDUTY).body)


# Configuration


@pytest.mark.parametrize(
    ("model", "config", "fault"),
    [
        (webhook.Config, {"url": "https://a.example", "secret": SECRET, "token": "t0psecret"}, "token: Extra inputs"),
        (webhook.Config, {"url": "https://a.example"}, "secret: Field required"),
        (webhook.Config, {"url": "http://a.example/t0psecret", "secret": SECRET}, "url: Value error, must begin with"),
        (webhook.Config, {"url": "ftp://a.example/t0psecret", "secret": SECRET}, "url: Value error, must begin with"),
        (webhook.Config, {"url": "https:///t0psecret", "secret": SECRET}, "url: Value error, has no host"),
        (webhook.Config, {"url": "https://a.example:t0psecret/", "secret": SECRET}, "url: Value error, is no"),
        (webhook.Config, {"url": "https://[t0psecret", "secret": SECRET}, "url: Value error, is no address"),
        (
            webhook.Config,
            {"url": "https://t0psecret\u2100.example", "secret": SECRET},
            "url: Value error, is no address",
        ),
        (webhook.Config, {"url": "https://a.example", "secret": "t0psecret"}, "secret: Value error, must be whsec_"),
        (webhook.Config, {"url": "https://a.example", "secret": "whsec_t0psecret"}, "secret: Value error, must be"),
        (webhook.Config, {"url": "https://a.example", "secret": SECRET, "previous_secrets": [SECRET] * 5}, "previous_"),
        (slack.Config, {"url": "http://hooks.slack.com/t0psecret"}, "url: Value error, must begin with https://"),
        (teams.Config, {"webhook_url": "https://a.example/t0psecret"}, "webhook_url: Extra inputs"),
        (pagerduty.Config, {"routing_key": "t0psecret"}, "routing_key: Value error, must be 32 letters and digits"),
        (pagerduty.Config, {"routing_key": "t0psecret" * 3 + "-----"}, "routing_key: Value error"),
    ],
)
def test_a_configuration_that_cannot_work_is_refused(
    model: type[ChannelConfig], config: dict[str, Any], fault: str
) -> None:
    """The fault names the key and never shows what was given."""
    with pytest.raises(ValidationError) as refused:
        parse(model, config)
    assert fault in faults(refused.value)
    for text in (faults(refused.value), str(refused.value), repr(refused.value)):
        assert "t0psecret" not in text
        assert SECRET not in text


def test_plain_http_needs_leave() -> None:
    """Only a machine's own development setting gives it."""
    config = parse(webhook.Config, {"url": "http://127.0.0.1:9/in", "secret": SECRET}, allow_private=True)
    assert config.url.get_secret_value() == "http://127.0.0.1:9/in"


@pytest.mark.parametrize("config", [WEBHOOK, SLACK, TEAMS, PAGERDUTY])
def test_a_configuration_does_not_show_its_secrets(config: ChannelConfig) -> None:
    """Neither printed nor dumped."""
    for shown in (repr(config), str(config), str(config.model_dump())):
        assert not any(secret in shown for secret in config.secrets())


def test_what_a_receiver_repeats_is_blotted_out() -> None:
    """The whole address, its path, its parts, the query's values, also where they were percent-encoded."""
    url = "https://ann:passw0rd-of-ann@a.example/hook/abcdefgh12/in?sig=qwertyui%3D1"
    secrets = parse(webhook.Config, {"url": url, "secret": SECRET, "previous_secrets": [OLD_SECRET]}).secrets()
    for said in (url, "/hook/abcdefgh12/in", "abcdefgh12", "qwertyui%3D1", "qwertyui=1", SECRET, OLD_SECRET):
        assert said not in tell(f"no such hook: {said}!", secrets)
    assert "passw0rd-of-ann" not in tell("hello passw0rd-of-ann", secrets)
    assert tell("this hook is closed", secrets) == "this hook is closed"


@given(st.text())
def test_what_is_told_is_one_short_printable_line(text: str) -> None:
    """Postgres takes it (no NUL, no lone surrogate), and it forges no log line."""
    told = tell(text, [])
    assert len(told) <= 300
    assert all(unicodedata.category(character) not in {"Cc", "Cs", "Zl", "Zp"} for character in told)
    told.encode()


# Outcomes


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
def test_success_is_any_2xx(status: int) -> None:
    assert classify(status) == Delivered(status)


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504, 599])
def test_what_may_pass_is_tried_again(status: int) -> None:
    assert classify(status, said="later", retry_after_seconds=3) == Retry(f"HTTP {status}: later", status, 3)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 413, 422, 451])
def test_what_will_not_pass_is_refused(status: int) -> None:
    assert classify(status, said="no") == Refused(f"HTTP {status}: no", status)


def test_redirects_and_410_say_what_to_do() -> None:
    """Both are the configuration's fault and need a person."""
    assert classify(301) == Refused("HTTP 301: redirects are not followed", 301)
    assert classify(410, said="x") == Refused(
        "HTTP 410: the receiver is gone for good; change, disable or delete the channel", 410
    )


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("0", 0.0),
        ("120", 120.0),
        (" 7 ", 7.0),
        ("999999999999999999999999", 3600.0),
        ("Mon, 05 Jan 2026 12:01:30 GMT", 90.0),
        ("Monday, 05-Jan-26 12:00:10 GMT", 10.0),
        ("Mon, 05 Jan 2026 11:00:00 GMT", 0.0),
        ("Mon, 05 Jan 2099 12:00:00 GMT", 3600.0),
        ("-5", None),
        ("1.5", None),
        ("٣", None),
        ("soon", None),
        ("", None),
    ],
)
def test_retry_after(value: str | None, seconds: float | None) -> None:
    """Seconds or an HTTP date, never more than an hour, never an error."""
    assert parse_retry_after(value, NOW) == seconds


@given(st.text())
def test_retry_after_is_never_an_error(value: str) -> None:
    """A receiver writes what it likes."""
    seconds = parse_retry_after(value, NOW)
    assert seconds is None or 0 <= seconds <= 3600


# Webhook


def test_a_webhook_is_signed_as_the_standard_says() -> None:
    """The example of the Standard Webhooks reference libraries."""
    key = webhook.signing_key("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    signature = webhook.sign(
        [key], message_id="msg_p5jXN8AQM9LWM0D4loKWxJek", timestamp=1614265330, body=b'{"test": 2432232314}'
    )
    assert signature == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_a_webhook_has_a_constant_id_and_body() -> None:
    """From one attempt to the next only time and signature change."""
    first = webhook.render(notification(), WEBHOOK, idempotency_key=KEY, sent_at=NOW)
    later = webhook.render(notification(), WEBHOOK, idempotency_key=KEY, sent_at=NOW.replace(hour=13))
    assert (first.url, first.body, first.headers["webhook-id"]) == (later.url, later.body, later.headers["webhook-id"])
    assert first.headers["webhook-timestamp"] == str(int(NOW.timestamp()))
    assert later.headers["webhook-timestamp"] == str(int(NOW.timestamp()) + 3600)
    assert first.headers["webhook-signature"] != later.headers["webhook-signature"]
    signed = f"{KEY}.{int(NOW.timestamp())}.".encode() + first.body
    digest = hmac.new(b"0123456789abcdefghijklmn", signed, hashlib.sha256).digest()
    assert first.headers["webhook-signature"] == "v1," + base64.b64encode(digest).decode()


def test_a_rotated_secret_signs_beside_the_new_one() -> None:
    """New first, both by the same rule."""
    config = parse(webhook.Config, {"url": "https://a.example", "secret": SECRET, "previous_secrets": [OLD_SECRET]})
    parts = webhook.render(notification(), config, idempotency_key=KEY, sent_at=NOW)
    alone = [
        webhook.render(
            notification(),
            parse(webhook.Config, {"url": "https://a.example", "secret": secret}),
            idempotency_key=KEY,
            sent_at=NOW,
        ).headers["webhook-signature"]
        for secret in (SECRET, OLD_SECRET)
    ]
    assert parts.headers["webhook-signature"].split(" ") == alone


@pytest.mark.parametrize("kind", KINDS)
def test_a_webhook_tells_everything(kind: str) -> None:
    """Type, time and the whole notification."""
    told = notification(kind)
    body = orjson.loads(webhook.render(told, WEBHOOK, idempotency_key=KEY, sent_at=NOW).body)
    assert body["type"] == f"alert.{kind}"
    assert body["timestamp"] == "2026-01-05T12:00:00+00:00"
    assert body["data"] == told.model_dump(mode="json")
    assert body["data"]["alert"]["device_name"] == "Boiler 1"


# Slack


def test_a_slack_message() -> None:
    """Title, message and facts, as blocks that make no links of their own."""
    parts = slack.render(notification("closed"), SLACK)
    body = orjson.loads(parts.body)
    assert parts.url == SLACK.url.get_secret_value()
    assert body["text"] == "Closed · critical · too hot · Boiler 1"
    title, message, fields = body["blocks"]
    assert title["text"]["text"] == ":white_check_mark: *Closed · critical · too hot · Boiler 1*"
    assert message["text"]["text"] == "temperature is 93.5, over 80"
    assert [field["text"] for field in fields["fields"]] == [
        "*Device*\nboiler-1",
        "*temperature*\n93.5",
        "*Opened at*\n2026-01-05T12:00:00+00:00",
        "*Closed at*\n2026-01-05T12:05:00+00:00",
        "*Closed because*\nresolved",
        "*Alert*\n7",
    ]
    assert all(text["verbatim"] for text in (title["text"], message["text"], *fields["fields"]))


def test_slack_markup_is_escaped() -> None:
    """A device cannot call the whole channel or show a false link."""
    names = {"rule_name": "<!channel> & co", "message": "<https://evil.example|our site>", "device_name": None}
    body = orjson.loads(slack.render(notification(alert=names), SLACK).body)
    assert body["text"] == "Opened · critical · &lt;!channel&gt; &amp; co · boiler-1"
    assert body["blocks"][1]["text"]["text"] == "&lt;https://evil.example|our site&gt;"


@given(TEXTS, TEXTS, st.text(alphabet="&<>", max_size=4000))
def test_slack_limits_hold_for_any_text(name: str, message: str, reason: str) -> None:
    """In characters after escaping, never cut inside an entity; in all below what Slack refuses."""
    odd = {"rule_name": name, "message": message, "device_id": message, "metric": name, "close_reason": reason}
    body = orjson.loads(slack.render(notification("closed", alert=odd), SLACK).body)
    title, text, fields = body["blocks"]
    assert len(body["blocks"]) <= 50
    assert len(fields["fields"]) <= 10
    texts = [title["text"]["text"], text["text"]["text"], *(field["text"] for field in fields["fields"])]
    assert all(0 < len(told) <= limit for told, limit in zip(texts, [3000, 3000, *[2000] * 10], strict=False))
    assert sum(map(len, [body["text"], *texts])) < 13_200
    for told in texts:
        assert all(piece.startswith(("amp;", "lt;", "gt;")) for piece in told.split("&")[1:])
        assert not set("<>") & set(told)


# Teams


def test_a_teams_card() -> None:
    """An Adaptive Card, alone in a message."""
    body = orjson.loads(teams.render(notification("acknowledged"), TEAMS).body)
    (attachment,) = body["attachments"]
    card = attachment["content"]
    assert (body["type"], attachment["contentType"]) == ("message", "application/vnd.microsoft.card.adaptive")
    assert (card["type"], card["version"]) == ("AdaptiveCard", "1.4")
    title, message, details = card["body"]
    assert (title["text"], title["color"]) == ("Acknowledged · critical · too hot · Boiler 1", "attention")
    assert message["text"] == "temperature is 93.5, over 80"
    assert {"title": "Acknowledged by", "value": "ann"} in details["facts"]


def test_teams_markdown_is_escaped() -> None:
    """No link from a device's name."""
    body = orjson.loads(teams.render(notification(alert={"message": "[pay](https://evil.example)"}), TEAMS).body)
    assert body["attachments"][0]["content"]["body"][1]["text"] == r"\[pay\]\(https://evil.example\)"


@given(st.lists(st.text(alphabet=st.sampled_from("a\\[\x01é😀\u2028"), max_size=9000), min_size=5, max_size=5))
def test_a_teams_message_has_at_most_28_kilobytes(texts: list[str]) -> None:
    """Whatever JSON and escaping make of the texts; what fits is not cut."""
    odd = dict(zip(("rule_name", "message", "device_id", "metric", "close_reason"), texts, strict=True))
    body = teams.render(notification("closed", alert=odd), TEAMS).body
    assert len(body) <= 28 * 1024
    assert orjson.loads(body)["attachments"][0]["content"]["type"] == "AdaptiveCard"


# PagerDuty


def test_pagerduty_events_of_one_alert_share_their_key() -> None:
    """Trigger, acknowledge, trigger again, resolve: one incident; the next alert is another."""
    events = [body_of(kind) for kind in KINDS]
    assert [event["event_action"] for event in events] == ["trigger", "acknowledge", "trigger", "resolve"]
    assert {event["dedup_key"] for event in events} == {"pulse/acme/7"}
    assert {event["routing_key"] for event in events} == {ROUTING_KEY}
    assert body_of("opened", alert={"alert_id": 8})["dedup_key"] == "pulse/acme/8"
    assert "payload" not in body_of("closed")


def test_a_pagerduty_trigger() -> None:
    """Every field that the incident shows."""
    payload = body_of("opened")["payload"]
    assert payload["summary"] == "Opened · critical · too hot · Boiler 1: temperature is 93.5, over 80"
    assert (payload["source"], payload["component"], payload["class"]) == ("boiler-1", "temperature", "too hot")
    assert payload["timestamp"] == "2026-01-05T12:00:00+00:00"
    assert payload["custom_details"]["fingerprint"] == "rule:3:boiler-1"
    assert payload["custom_details"]["trace_id"] == "a" * 32
    assert body_of("opened", alert={"device_id": None})["payload"]["source"] == "pulse"


@pytest.mark.parametrize("severity", ["info", "warning", "error", "critical"])
def test_pagerduty_severities(severity: str) -> None:
    """The four of the Events API v2."""
    assert body_of("opened", alert={"severity": severity})["payload"]["severity"] == severity


@given(TEXTS, TEXTS)
def test_pagerduty_limits_hold_for_any_text(name: str, message: str) -> None:
    """Characters of the summary, bytes of the event, length of the key."""
    odd = {"rule_name": name, "message": message, "device_id": message, "metric": name, "fingerprint": name * 3}
    told = notification(alert=odd | {"alert_id": 2**63 - 1}, tenant_id="t" * 63)
    body = pagerduty.render(told, PAGERDUTY).body
    event = orjson.loads(body)
    assert len(event["payload"]["summary"]) <= 1024
    assert len(event["dedup_key"]) <= 255
    assert len(body) < 512_000


# Wording


@given(st.text(), st.integers(1, 50))
def test_clipping_cuts_between_characters(text: str, limit: int) -> None:
    """A prefix and an ellipsis, or the text itself."""
    clipped = clip(text, limit)
    assert len(clipped) <= limit
    assert clipped == text or (clipped.endswith("…") and text.startswith(clipped[:-1]))
