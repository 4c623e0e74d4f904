"""Channels against a real server that checks every header and field of each request."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import httpx
import orjson
import pytest

from services.delivery_worker import channels
from services.delivery_worker.channels.outcome import Delivered, Gone, Limited, Outcome, Refused, Retry, Unknown
from services.shared import tracing
from services.shared.channels import KINDS
from services.shared.http_client import traced_client
from tests.support.notifications import KEY, notification
from tests.support.receiver import Receiver

SECRET = "whsec_MDEyMzQ1Njc4OWFiY2RlZmdoaWprbG1u"
ROUTING_KEY = "R0UT1NGKEYR0UT1NGKEYR0UT1NGKEY32"


def config_of(kind: str, url: str) -> dict[str, Any]:
    secrets = {"webhook": {"secret": SECRET}, "pagerduty": {"routing_key": ROUTING_KEY}}
    return {"url": f"{url}/services/T0000/hush-hush-hush?sig=quiet-quiet", **secrets.get(kind, {})}


async def send(
    kind: str, config: Mapping[str, Any], *, client: httpx.AsyncClient | None = None, allow_private: bool = True
) -> Outcome:
    """Make one attempt, with a new client unless one is given."""
    if client is None:
        async with traced_client(allow_private=allow_private, timeout_seconds=5) as own:
            return await send(kind, config, client=own, allow_private=allow_private)
    return await channels.send(
        kind,
        client,
        config,
        notification(),
        idempotency_key=KEY,
        sent_at=datetime.now(UTC),
        allow_private=allow_private,
    )


@pytest.mark.parametrize("kind", KINDS)
async def test_a_notification_arrives(kind: str) -> None:
    """The request is one POST of JSON to the full address, with the trace and no internal data."""
    async with Receiver() as receiver:
        with tracing.use_trace_id("d" * 32):
            assert await send(kind, config_of(kind, receiver.url)) == Delivered(200)
        (request,) = receiver.requests
        assert request.line == "POST /services/T0000/hush-hush-hush?sig=quiet-quiet HTTP/1.1"
        names = {name for name, _value in request.headers}
        expected = {
            *("host", "accept", "accept-encoding", "connection", "user-agent", "content-type", "content-length"),
            *("x-trace-id", "traceparent"),
        }
        signature = {"webhook-id", "webhook-timestamp", "webhook-signature"}
        assert names == (expected | signature if kind == "webhook" else expected)
        assert request.header("content-type") == "application/json"
        assert request.header("user-agent") == "Pulse"
        assert request.header("x-trace-id") == "d" * 32
        assert re.fullmatch(f"00-{'d' * 32}-[0-9a-f]{{16}}-01", request.header("traceparent") or "")
        member = {"webhook": "data", "slack": "blocks", "teams": "attachments", "pagerduty": "payload"}.get(kind)
        assert member is None or member in request.json()
        sent = orjson.dumps(request.json()).decode()
        assert SECRET not in sent
        assert (ROUTING_KEY in sent) == (kind == "pagerduty")


@pytest.mark.parametrize("kind", KINDS)
async def test_the_answer_decides(kind: str) -> None:
    """Every channel maps statuses to the same outcomes."""
    async with Receiver() as receiver:
        receiver.answers += [
            (202, {}, b""),
            (429, {"retry-after": "7"}, b"slow down"),
            (503, {"retry-after": "Thu, 01 Jan 2099 00:00:00 GMT"}, b""),
            (503, {"retry-after": "Thu, 01 Jan 2004 00:00:00 GMT"}, b""),
            (503, {}, b""),
            (500, {}, b""),
            (400, {}, b"invalid_blocks"),
            (410, {}, b"gone"),
            (301, {"location": receiver.url}, b""),
        ]
        config = config_of(kind, receiver.url)
        assert [await send(kind, config) for _ in range(9)] == [
            Delivered(202),
            Limited("HTTP 429: slow down", 429, 7.0),
            Limited("HTTP 503", 503, 30 * 86400.0),
            Retry("HTTP 503", 503),
            Retry("HTTP 503", 503),
            Retry("HTTP 500", 500),
            Refused("HTTP 400: invalid_blocks", 400),
            Gone("HTTP 410: gone (gone for good, so the channel was disabled)", 410),
            Retry("HTTP 301: redirects are not followed", 301),
        ]


@pytest.mark.parametrize("kind", KINDS)
async def test_an_echoed_request_is_recorded_without_secrets(kind: str) -> None:
    """A server that echoes the request must not fill the tables with secrets."""
    async with Receiver() as receiver:
        config = config_of(kind, receiver.url)
        receiver.default = (400, {}, f"{config} and hush-hush-hush, quiet-quiet, \x00 {ROUTING_KEY} {SECRET}".encode())
        outcome = await send(kind, config)
        assert isinstance(outcome, Refused)
        secrets = ["hush-hush-hush", "quiet-quiet", "\x00", *(value for value in config.values())]
        assert [secret for secret in secrets if secret in outcome.reason] == []
        assert "***" in outcome.reason


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (f"no {SECRET}", "no ***"),
        (f"no {SECRET[9:17]}", "(withheld: it repeats a part of the address or secret)"),
        ("".join(f"%{ord(letter):02x}" for letter in SECRET), "(withheld: it repeats a part of the address or secret)"),
        ("n" * 301, "n" * 299 + "…"),
    ],
)
async def test_a_reason_is_short_and_without_parts_of_secrets(said: str, reason: str) -> None:
    async with Receiver() as receiver:
        receiver.default = (400, {}, said.encode())
        assert await send("webhook", config_of("webhook", receiver.url)) == Refused(f"HTTP 400: {reason}", 400)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_long_answer_is_cut_before_a_secret_not_in_it(kind: str) -> None:
    """The first letters of a secret would not be recognized as one. Blanks are joined, so they reach the reason."""
    async with Receiver() as receiver:
        config = config_of(kind, receiver.url)
        for secret in (SECRET, ROUTING_KEY, "hush-hush-hush"):
            for letters in (1, 7):
                receiver.default = (400, {}, b"said:".ljust(4096 - letters) + secret.encode() * 9)
                assert await send(kind, config) == Refused("HTTP 400: said:", 400)


@pytest.mark.parametrize("kind", KINDS)
async def test_addresses_that_are_not_public_are_refused_for_good(kind: str) -> None:
    """All senders use the same check, and a retry would not change its result."""
    async with Receiver() as receiver:
        url = receiver.url.replace("http://127.0.0.1", "https://2130706433")
        assert await send(kind, config_of(kind, url), allow_private=False) == Refused(
            "The address is not a public one."
        )
        assert receiver.connections == 0


@pytest.mark.parametrize("kind", KINDS)
async def test_a_receiver_that_is_away_is_tried_again(kind: str) -> None:
    async with Receiver() as receiver:
        config = config_of(kind, receiver.url)
        receiver.default = b"nonsense\r\n\r\n"
        assert isinstance(await send(kind, config), Unknown)
        receiver.hold.clear()
        async with traced_client(allow_private=True, timeout_seconds=0.05) as client:
            assert await send(kind, config, client=client) == Unknown("no answer within 0.05 s")
    assert isinstance(await send(kind, config), Retry)
    assert await send(kind, config_of(kind, "https://nowhere.invalid")) == Retry("the name does not resolve")


async def test_a_url_that_httpx_cannot_read_is_refused() -> None:
    config = config_of("slack", "https://0177.0.0.1")
    assert await send("slack", config) == Refused("the URL is not valid")


@pytest.mark.parametrize("kind", KINDS)
async def test_a_configuration_that_cannot_work_is_refused(kind: str) -> None:
    """The reason names the key, not its value."""
    config = {**config_of(kind, "https://a.example"), "tokne": "hush-hush-hush"}
    outcome = await send(kind, config)
    assert outcome == Refused("the channel's configuration cannot work: tokne: Extra inputs are not permitted")
    assert isinstance(await send(kind, config_of(kind, "http://a.example"), allow_private=False), Refused)
