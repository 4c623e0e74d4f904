"""Requests and configuration checks of each channel, without a network."""

import base64
import hashlib
import hmac
import unicodedata
from datetime import UTC, datetime
from typing import Any

import httpx
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from services.delivery_worker.channels import faults, pagerduty, slack, teams, webhook
from services.delivery_worker.channels.outcome import (
    LONGEST_PAUSE_SECONDS,
    Delivered,
    Gone,
    Limited,
    Outcome,
    Refused,
    Retry,
    Unknown,
    classify,
    classify_error,
    parse_retry_after,
)
from services.delivery_worker.channels.request import Judge, tell
from services.delivery_worker.channels.wording import clip
from services.shared.channels import ChannelConfig, PagerDutyConfig, UrlConfig, WebhookConfig, signing_key
from services.shared.http_client import AddressRefused
from tests.support.channel_bodies import PAGERDUTY, ROUTING_KEY, SECRET, SLACK, TEAMS, WEBHOOK, parse
from tests.support.notifications import KEY, notification

NOW = datetime(2026, 1, 5, 12, tzinfo=UTC)
OLD_SECRET = "whsec_" + base64.b64encode(b"z" * 64).decode()
KINDS = ("opened", "acknowledged", "escalated", "closed")
TEXTS = st.text(max_size=6000)


def body_of(kind: str, **fields: Any) -> Any:
    return orjson.loads(pagerduty.render(notification(kind, **fields), PAGERDUTY).body)


# Configuration


@pytest.mark.parametrize(
    ("model", "config", "fault"),
    [
        (WebhookConfig, {"url": "https://a.example", "secret": SECRET, "token": "t0psecret"}, "token: Extra inputs"),
        (WebhookConfig, {"url": "https://a.example"}, "config.secret is missing"),
        (WebhookConfig, {"url": "http://a.example/t0psecret", "secret": SECRET}, "url: Value error, must begin with"),
        (WebhookConfig, {"url": "ftp://a.example/t0psecret", "secret": SECRET}, "url: Value error, must begin with"),
        (WebhookConfig, {"url": "https:///t0psecret", "secret": SECRET}, "url: Value error, has no host"),
        (WebhookConfig, {"url": "https://a.example:t0psecret/", "secret": SECRET}, "url: Value error, is no"),
        (WebhookConfig, {"url": "https://[t0psecret", "secret": SECRET}, "url: Value error, is no address"),
        (
            WebhookConfig,
            {"url": "https://t0psecret\u2100.example", "secret": SECRET},
            "url: Value error, is no address",
        ),
        (WebhookConfig, {"url": "https://a.example", "secret": "t0psecret"}, "secret: Value error, must be whsec_"),
        (WebhookConfig, {"url": "https://a.example", "secret": "whsec_t0psecret"}, "secret: Value error, must be"),
        (WebhookConfig, {"url": "https://a.example", "secret": SECRET, "previous_secrets": [SECRET] * 5}, "previous_"),
        (UrlConfig, {"url": "http://hooks.slack.com/t0psecret"}, "url: Value error, must begin with https://"),
        (UrlConfig, {"webhook_url": "https://a.example/t0psecret"}, "webhook_url: Extra inputs"),
        (PagerDutyConfig, {"routing_key": "t0psecret"}, "routing_key: Value error, must be 32 letters and digits"),
        (PagerDutyConfig, {"routing_key": "t0psecret" * 3 + "-----"}, "routing_key: Value error"),
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
    """Only a development setting permits it."""
    config = parse(WebhookConfig, {"url": "http://127.0.0.1:9/in", "secret": SECRET}, allow_private=True)
    assert config.url.get_secret_value() == "http://127.0.0.1:9/in"


@pytest.mark.parametrize("config", [WEBHOOK, SLACK, TEAMS, PAGERDUTY])
def test_a_configuration_does_not_show_its_secrets(config: ChannelConfig) -> None:
    """Neither repr nor dump contains them."""
    for shown in (repr(config), str(config), str(config.model_dump())):
        assert not any(secret in shown for secret in config.secrets())


def test_what_a_receiver_repeats_is_blotted_out() -> None:
    """The address, its path, its parts and query values are masked, even percent-encoded."""
    url = "https://ann:passw0rd-of-ann@a.example/hook/abcdefgh12/in?sig=qwertyui%3D1"
    secrets = parse(WebhookConfig, {"url": url, "secret": SECRET, "previous_secrets": [OLD_SECRET]}).secrets()
    for said in (url, "/hook/abcdefgh12/in", "abcdefgh12", "qwertyui%3D1", "qwertyui=1", SECRET, OLD_SECRET):
        assert said not in tell(f"no such hook: {said}!", secrets)
    assert "passw0rd-of-ann" not in tell("hello passw0rd-of-ann", secrets)
    # A part of a secret, and a secret that the end of a long answer cuts in two.
    assert "efgh12" not in tell("no hook efgh12… but bcdefgh12", secrets)
    assert tell("this hook is closed", secrets) == "this hook is closed"


@given(st.text())
def test_a_reported_answer_is_one_short_printable_line(text: str) -> None:
    """Postgres can store it, and it cannot forge a log line."""
    reason = tell(text, [])
    assert len(reason) <= 300
    assert all(unicodedata.category(character) not in {"Cc", "Cs", "Zl", "Zp"} for character in reason)
    reason.encode()


# Outcomes


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
def test_success_is_any_2xx(status: int) -> None:
    assert classify(status) == Delivered(status)


GIVEN_UP = {400, 411, 413, 414, 415, 417, 422, 431}


def test_every_status_has_its_outcome() -> None:
    """A receiver may answer anything during a deployment. Only permanent errors end the job at once."""
    for status in range(100, 600):
        special: dict[int, type] = {429: Limited, 410: Gone, **dict.fromkeys(GIVEN_UP, Refused)}
        outcome = classify(status, said="no", retry_after_seconds=None)
        assert type(outcome) is (Delivered if status // 100 == 2 else special.get(status, Retry))
        assert outcome.status_code == status


def test_503_with_retry_after_is_a_limit() -> None:
    """Without Retry-After, a 503 is an ordinary failure."""
    assert classify(503, said="busy", retry_after_seconds=3) == Limited("HTTP 503: busy", 503, 3)
    assert classify(503, said="busy") == Retry("HTTP 503: busy", 503)
    assert classify(500, said="busy", retry_after_seconds=3) == Retry("HTTP 500: busy", 500, 3)


def test_redirects_and_410_say_what_to_do() -> None:
    """Both are configuration errors that a person must fix."""
    assert classify(301) == Retry("HTTP 301: redirects are not followed", 301)
    assert classify(410, said="x") == Gone("HTTP 410: x (gone for good, so the channel was disabled)", 410)


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (httpx.ConnectError("the name does not resolve"), Retry("the name does not resolve")),
        (httpx.ConnectError("[SSL: CERTIFICATE_VERIFY_FAILED]"), Retry("[SSL: CERTIFICATE_VERIFY_FAILED]")),
        (httpx.ConnectTimeout("no connection"), Retry("no connection")),
        (httpx.ProxyError("403 Forbidden"), Retry("403 Forbidden")),
        (httpx.NetworkError(""), Unknown("NetworkError")),
        (httpx.ReadError("connection reset"), Unknown("connection reset")),
        (httpx.TimeoutException("no answer within 10 s"), Unknown("no answer within 10 s")),
        (httpx.RemoteProtocolError("broken"), Unknown("broken")),
        (AddressRefused("The address is not a public one."), Refused("The address is not a public one.")),
        (httpx.InvalidURL("secret"), Refused("the URL is not valid")),
    ],
)
def test_every_failure_to_get_an_answer_has_its_outcome(
    error: httpx.TransportError | httpx.InvalidURL, outcome: Outcome
) -> None:
    """A sent request may have arrived. Without a connection it did not. Some addresses never accept one."""
    assert classify_error(error, said=str(error)) == outcome


TEAMS_ERROR = (
    "Webhook message delivery failed with error: Microsoft Teams endpoint returned HTTP error {} with ContextId 1"
)


@pytest.mark.parametrize(
    ("judge", "status", "text", "verdict"),
    [
        (slack.judge, 200, "ok", None),
        (slack.judge, 200, "", None),
        (slack.judge, 200, '{"ok": true}', None),
        (slack.judge, 200, "no_service", "retry"),
        (slack.judge, 404, "no_service", None),
        (slack.judge, 200, "invalid_payload", "refused"),
        (slack.judge, 400, "invalid_payload", "refused"),
        (slack.judge, 403, "invalid_blocks", "refused"),
        (slack.judge, 200, "channel_is_archived", "gone"),
        (slack.judge, 404, "channel_is_archived", "gone"),
        (slack.judge, 400, "user_not_found", "retry"),
        (slack.judge, 200, "rate_limited", "limited"),
        (slack.judge, 200, "<html>Sign in</html>", "retry"),
        (slack.judge, 200, '{"ok": false, "error": "x"}', "retry"),
        (teams.judge, 200, "1", None),
        (teams.judge, 202, "", None),
        (teams.judge, 200, TEAMS_ERROR.format(429), "limited"),
        (teams.judge, 200, TEAMS_ERROR.format(400), "retry"),
        (teams.judge, 200, TEAMS_ERROR.format(500), "retry"),
        (teams.judge, 202, '{"error": {"code": "WorkflowTriggerIsNotEnabled"}}', "retry"),
        (teams.judge, 202, '{"id": "1", "error": null}', None),
        (teams.judge, 200, "<!DOCTYPE html>", "retry"),
        (teams.judge, 400, "Bad payload received by generic incoming webhook.", None),
        (pagerduty.judge, 202, '{"status": "success", "message": "Event processed", "dedup_key": "k"}', None),
        (pagerduty.judge, 200, '{"status": "invalid event", "errors": ["x"]}', "retry"),
        (pagerduty.judge, 200, "<html>", "retry"),
    ],
)
def test_a_text_may_say_more_than_the_status(judge: Judge, status: int, text: str, verdict: str | None) -> None:
    """None leaves it to the status."""
    assert judge(status, text) == verdict
    if verdict is not None:
        assert type(classify(status, verdict=judge(status, text))).__name__.lower() == verdict


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("0", None),
        ("120", 120.0),
        (" 7 ", 7.0),
        ("999999999999999999999999", LONGEST_PAUSE_SECONDS),
        ("9" * 300, LONGEST_PAUSE_SECONDS),
        ("Mon, 05 Jan 2026 12:01:30 GMT", 90.0),
        ("Monday, 05-Jan-26 12:00:10 GMT", 10.0),
        ("Mon, 05 Jan 2026 11:00:00 GMT", None),
        ("Mon, 05 Jan 2099 12:00:00 GMT", LONGEST_PAUSE_SECONDS),
        ("Mon, 05 Jan 99999 12:00:00 GMT", None),
        ("Mon, 05 Jan 2026 12:00:10 +0000", 10.0),
        ("-5", None),
        ("1.5", 1.5),
        ("1e9", None),
        ("nan", None),
        ("inf", None),
        ("5, 7", None),
        ("0.0", None),
        ("٣", None),
        ("soon", None),
        ("", None),
    ],
)
def test_retry_after(value: str | None, seconds: float | None) -> None:
    """The value is seconds or an HTTP date, bounded, and never raises an error."""
    assert parse_retry_after(value, NOW) == seconds


@given(st.text())
def test_retry_after_is_never_an_error(value: str) -> None:
    """Receivers may send any value."""
    seconds = parse_retry_after(value, NOW)
    assert seconds is None or 0 < seconds <= LONGEST_PAUSE_SECONDS


# Webhook


def test_a_webhook_is_signed_as_the_standard_says() -> None:
    """The example of the Standard Webhooks reference libraries."""
    key = signing_key("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    signature = webhook.sign(
        [key], message_id="msg_p5jXN8AQM9LWM0D4loKWxJek", timestamp=1614265330, body=b'{"test": 2432232314}'
    )
    assert signature == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_a_webhook_has_a_constant_id_and_body() -> None:
    """Only time and signature change between attempts."""
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
    """Both signatures follow the same rule, the new secret's first."""
    config = parse(WebhookConfig, {"url": "https://a.example", "secret": SECRET, "previous_secrets": [OLD_SECRET]})
    parts = webhook.render(notification(), config, idempotency_key=KEY, sent_at=NOW)
    alone = [
        webhook.render(
            notification(),
            parse(WebhookConfig, {"url": "https://a.example", "secret": secret}),
            idempotency_key=KEY,
            sent_at=NOW,
        ).headers["webhook-signature"]
        for secret in (SECRET, OLD_SECRET)
    ]
    assert parts.headers["webhook-signature"].split(" ") == alone


@pytest.mark.parametrize("kind", KINDS)
def test_a_webhook_contains_everything(kind: str) -> None:
    """Type, time and the whole notification."""
    sent = notification(kind)
    body = orjson.loads(webhook.render(sent, WEBHOOK, idempotency_key=KEY, sent_at=NOW).body)
    assert body["type"] == f"alert.{kind}"
    assert body["timestamp"] == "2026-01-05T12:00:00+00:00"
    assert body["data"] == sent.model_dump(mode="json")
    assert body["data"]["alert"]["device_name"] == "Boiler 1"


# Slack


def test_a_slack_message() -> None:
    """Title, message and facts, as blocks of plain text."""
    parts = slack.render(notification("closed"), SLACK)
    body = orjson.loads(parts.body)
    assert parts.url == SLACK.url.get_secret_value()
    assert (body["text"], body["mrkdwn"]) == ("Closed · critical · too hot · Boiler 1", False)
    title, message, fields = body["blocks"]
    assert title["text"]["text"] == "✅ Closed · critical · too hot · Boiler 1"
    assert message["text"]["text"] == "temperature is 93.5, over 80"
    assert [field["text"] for field in fields["fields"]] == [
        "Device\nboiler-1",
        "temperature\n93.5",
        "Opened at\n2026-01-05T12:00:00+00:00",
        "Closed at\n2026-01-05T12:05:00+00:00",
        "Closed because\nresolved",
        "Alert\n7",
    ]


def texts_of(value: Any) -> list[dict[str, Any]]:
    """Return every text object of a message."""
    if isinstance(value, list):
        return [text for item in value for text in texts_of(item)]
    if not isinstance(value, dict):
        return []
    own = [value] if isinstance(value.get("text"), str) and "type" in value else []
    return own + [text for item in value.values() for text in texts_of(item)]


def test_slack_parses_nothing_of_a_name() -> None:
    """A name cannot mention the channel or show a false link: no text is mrkdwn, and < and & are entities."""
    names = {
        "rule_name": "<!channel> & *co* _x_ ~y~ `z`",
        "message": "<https://evil.example|our site> <@U123> :fire:",
        "device_name": None,
        "acknowledged_by": "<!here>",
    }
    body = orjson.loads(slack.render(notification("acknowledged", alert=names), SLACK).body)
    assert body["text"] == "Acknowledged · critical · &lt;!channel&gt; &amp; *co* _x_ ~y~ `z` · boiler-1"
    assert body["mrkdwn"] is False
    assert body["blocks"][1]["text"]["text"] == "&lt;https://evil.example|our site&gt; &lt;@U123&gt; :fire:"
    assert {(text["type"], text["emoji"]) for text in texts_of(body["blocks"])} == {("plain_text", False)}


@given(TEXTS, TEXTS, st.text(alphabet="&<>", max_size=4000))
def test_slack_limits_hold_for_any_text(name: str, message: str, reason: str) -> None:
    """Limits count characters after escaping, never cut an entity, and hold for the whole message."""
    odd = {"rule_name": name, "message": message, "device_id": message, "metric": name, "close_reason": reason}
    body = orjson.loads(slack.render(notification("closed", alert=odd), SLACK).body)
    title, text, fields = body["blocks"]
    assert len(body["blocks"]) <= 50
    assert len(fields["fields"]) <= 10
    texts = [title["text"]["text"], text["text"]["text"], *(field["text"] for field in fields["fields"])]
    longest = {"header": 150, "section": 500}[title["type"]]
    assert all(0 < len(shown) <= limit for shown, limit in zip(texts, [longest, 3000, *[2000] * 10], strict=False))
    assert sum(map(len, [body["text"], *texts])) < 13_200
    for shown in texts:
        assert all(piece.startswith(("amp;", "lt;", "gt;")) for piece in shown.split("&")[1:])
        assert not set("<>") & set(shown)


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


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("[pay](https://evil.example)", r"\[pay\]\(https://evil.example\)"),
        ("{{DATE(2026-01-05T12:00:00Z,SHORT)}}", r"\{\{DATE\(2026-01-05T12:00:00Z,SHORT\)\}\}"),
        ("${title} **b** _i_ `c`", r"$\{title\} \*\*b\*\* \_i\_ \`c\`"),
        ("&lt;at&gt; <at>all</at>", r"\&lt;at\&gt; \<at\>all\</at\>"),
        ("- item", r"\- item"),
        ("1. item", r"1\. item"),
        ("-3.5 of 50.5", "-3.5 of 50.5"),
        ("one\n\n# two\r- three", r"one  \# two - three"),
        ("safe\u202eexe\x07", "safeexe"),
    ],
)
def test_teams_marks_are_escaped(message: str, shown: str) -> None:
    """Names cannot contain links, lists, mentions, dates, or characters that hide or reverse text."""
    body = orjson.loads(teams.render(notification(alert={"message": message}), TEAMS).body)
    assert body["attachments"][0]["content"]["body"][1]["text"] == shown


@given(TEXTS)
def test_no_card_function_survives_in_any_field(text: str) -> None:
    """No card function survives in the title, the message and the facts."""
    odd = dict.fromkeys(("rule_name", "message", "device_name", "device_id", "metric"), "{{TIME(" + text + ")}}")
    body = orjson.loads(teams.render(notification("closed", alert=odd | {"close_reason": odd["message"]}), TEAMS).body)
    title, message, details = body["attachments"][0]["content"]["body"]
    shown = [title["text"], message["text"], *(fact[part] for fact in details["facts"] for part in ("title", "value"))]
    assert all("{{" not in each and "}}" not in each for each in shown)
    assert all(unicodedata.category(character) not in ("Cc", "Zl", "Zp") for each in shown for character in each)


@given(st.lists(st.text(alphabet=st.sampled_from("a\\[\x01é😀\u2028"), max_size=9000), min_size=5, max_size=5))
def test_a_teams_message_has_at_most_28_kilobytes(texts: list[str]) -> None:
    """The limit holds after JSON encoding and escaping. Texts that fit are not cut."""
    odd = dict(zip(("rule_name", "message", "device_id", "metric", "close_reason"), texts, strict=True))
    body = teams.render(notification("closed", alert=odd), TEAMS).body
    assert len(body) <= 28 * 1024
    assert orjson.loads(body)["attachments"][0]["content"]["type"] == "AdaptiveCard"


# PagerDuty


def test_pagerduty_events_of_one_alert_share_their_key() -> None:
    """All events of an alert belong to one incident. The next alert is another."""
    events = [body_of(kind) for kind in KINDS]
    assert [event["event_action"] for event in events] == ["trigger", "acknowledge", "trigger", "resolve"]
    # A job made before the dispatcher fixed the key.
    assert {event["dedup_key"] for event in events} == {"pulse/acme/7"}
    assert {event["routing_key"] for event in events} == {ROUTING_KEY}
    assert body_of("opened", alert={"alert_id": 8})["dedup_key"] == "pulse/acme/8"
    assert {body_of(kind, dedup_key="pulse/x/acme/7")["dedup_key"] for kind in KINDS} == {"pulse/x/acme/7"}
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
    sent = notification(alert=odd | {"alert_id": 2**63 - 1}, tenant_id="t" * 63, dedup_key="k" * 300)
    body = pagerduty.render(sent, PAGERDUTY).body
    event = orjson.loads(body)
    assert len(event["payload"]["summary"]) <= 1024
    assert all(unicodedata.category(character) != "Cc" for character in event["payload"]["summary"])
    assert 0 < len(event["payload"]["source"]) <= 1024
    assert len(event["dedup_key"]) <= 255
    assert len(body) < 512_000


# Wording


@given(st.text(), st.integers(1, 50))
def test_clipping_cuts_between_characters(text: str, limit: int) -> None:
    """A prefix and an ellipsis, or the text itself."""
    clipped = clip(text, limit)
    assert len(clipped) <= limit
    assert clipped == text or (clipped.endswith("…") and text.startswith(clipped[:-1]))
