"""The demo: its devices, the fleet that reports for them, and the sink that checks notifications."""

import base64
import hashlib
import hmac
import time
from collections import Counter
from collections.abc import AsyncIterator

import httpx
import orjson
import pytest

from services.local.demo import fleet
from services.local.demo.factory import FREE_DEVICE, HOT_DEVICE, RULES, devices
from services.local.demo.sink import create_app, signature_fault

SECRET = "whsec_" + base64.b64encode(b"0123456789abcdef0123456789abcdef").decode()
TOKENS = {device.device_id: f"pdt_demo_{device.device_id}" for device in devices(120)}


def sign(body: bytes, *, message_id: str = "msg_1", sent_at: int | None = None, secret: str = SECRET) -> dict[str, str]:
    """Headers of a sender that follows the Standard Webhooks specification."""
    at = str(int(time.time()) if sent_at is None else sent_at)
    signed = f"{message_id}.{at}.".encode() + body
    digest = hmac.digest(base64.b64decode(secret.removeprefix("whsec_")), signed, hashlib.sha256)
    return {
        "webhook-id": message_id,
        "webhook-timestamp": at,
        "webhook-signature": "v1," + base64.b64encode(digest).decode(),
    }


@pytest.fixture
async def sink() -> AsyncIterator[httpx.AsyncClient]:
    """A client of a sink in this process."""
    transport = httpx.ASGITransport(create_app(SECRET))
    async with httpx.AsyncClient(transport=transport, base_url="http://sink") as client:
        yield client


@pytest.mark.parametrize("count", [1, 2, 20, 120])
def test_devices_are_as_many_as_asked_and_each_has_a_way_to_report(count: int) -> None:
    """The furnace is included, gateways and the hand-held probe are not."""
    made = devices(count)
    ids = [device.device_id for device in made]
    gateways = {device.device_id for device in made if device.is_gateway}
    assert len(ids) == len(set(ids))
    assert len(ids) - len(gateways) - 1 == count
    assert {device.gateway for device in made if device.gateway} == gateways
    assert {HOT_DEVICE, FREE_DEVICE} <= set(ids)


def test_a_round_opens_one_alert_and_closes_it() -> None:
    """The furnace starts normal, so an alert left open by an earlier run closes first."""
    threshold = RULES[0]["threshold"]
    assert isinstance(threshold, float)
    hot = [fleet.furnace_temperature(second) > threshold for second in range(120)]
    assert not hot[0]
    changes = [second for second in range(1, 120) if hot[second] != hot[second - 1]]
    assert len(changes) == 4
    assert changes[0] <= 3


def test_the_sensors_never_breach_a_rule_by_chance() -> None:
    """Only the furnace raises alerts, so the demo is always the same."""
    thresholds = {"vibration": 8.0, "battery": 15.0}
    assert {rule["metric"]: rule["threshold"] for rule in RULES if rule["metric"] in thresholds} == thresholds
    names = [f"sensor-{number:03}" for number in range(5000)]
    assert max(fleet.sensor_value(name, "vibration", second) for second, name in enumerate(names)) < 8.0
    assert min(fleet.sensor_value(name, "battery", second) for second, name in enumerate(names)) > 15.0


def test_the_fleet_brings_the_asked_rate_and_no_reading_twice() -> None:
    """In ten seconds at 1,000 readings a second, all sensors report and no key repeats."""
    senders = fleet.build_senders(devices(120), TOKENS)
    assert {sender.token for sender in senders} == {"pdt_demo_gateway-1", "pdt_demo_gateway-2", "pdt_demo_gateway-3"}
    readings = []
    for second in range(10):
        for sender in senders:
            sender.collect(rate=1000, seconds=second, now=1_800_000_000 + second)
            readings += sender.unsent.pop()
    assert abs(len(readings) - 10_000) <= len(senders)
    assert len({(one["device_id"], one["metric"], one["timestamp"]) for one in readings}) == len(readings)
    turns = Counter((one["device_id"], one["metric"]) for one in readings)
    assert len(turns) == 119 * len(fleet.METRICS)
    assert max(turns.values()) - min(turns.values()) <= 2


def test_a_low_rate_is_kept_over_time() -> None:
    """Fractions of a reading are carried over to the next interval."""
    (sender,) = fleet.build_senders(devices(20), TOKENS)
    for second in range(40):
        sender.collect(rate=0.25, seconds=second, now=1_800_000_000 + second)
    assert [len(batch) for batch in sender.unsent] == [1] * 10


async def test_batches_wait_while_the_api_is_away_and_go_in_order() -> None:
    """A restart of ui_iot loses nothing, and a refused batch does not block the next."""
    got: list[list[str]] = []
    answers = iter([503, 200, 429, 200, 422, 200])

    def answer(request: httpx.Request) -> httpx.Response:
        status = next(answers)
        if status == 200:
            got.append([one["device_id"] for one in orjson.loads(request.content)["readings"]])
        assert request.headers["authorization"] == "Bearer t"
        return httpx.Response(status, json={"refused": []})

    sender = fleet.ReadingSender(token="t", turns=iter(()), share=1)
    sender.unsent = [[{"device_id": name}] for name in ("a", "b", "refused", "c")]
    async with httpx.AsyncClient(transport=httpx.MockTransport(answer), base_url="http://api") as client:
        for _ in range(3):
            await fleet.send_all(client, sender)
    assert got == [["a"], ["b"], ["c"]]
    assert sender.unsent == []


async def test_the_sink_shows_what_came_newest_first(sink: httpx.AsyncClient) -> None:
    """The headers contain the trace id."""
    for trace_id in ("a" * 32, "b" * 32):
        body = orjson.dumps({"kind": "opened", "trace": trace_id})
        answer = await sink.post("/hooks/demo", content=body, headers={**sign(body), "X-Trace-ID": trace_id})
        assert answer.status_code == 204
    shown = (await sink.get("/received")).json()["received"]
    assert [one["headers"]["x-trace-id"] for one in shown] == ["b" * 32, "a" * 32]
    assert (shown[0]["verified"], shown[0]["path"], shown[0]["body"]["kind"]) == (True, "/hooks/demo", "opened")
    only = (await sink.get("/received", params={"trace_id": "a" * 32})).json()["received"]
    assert [one["body"]["trace"] for one in only] == ["a" * 32]
    assert len((await sink.get("/received", params={"limit": "1"})).json()["received"]) == 1
    assert (await sink.get("/received", params={"limit": "x"})).status_code == 400


async def test_the_sink_refuses_what_is_not_signed_by_its_secret(sink: httpx.AsyncClient) -> None:
    """The refused request is kept and shown."""
    answer = await sink.post("/hooks/demo", content=b"{}")
    assert (answer.status_code, answer.text) == (401, "unsigned\n")
    shown = (await sink.get("/received")).json()["received"]
    assert (shown[0]["verified"], shown[0]["fault"]) == (False, "unsigned")


def test_signatures() -> None:
    """One of several signatures may match, as in a rotation. Body, id, time and secret are covered."""
    now = int(time.time())
    good = sign(b"{}", sent_at=now)
    other = sign(b"{}", sent_at=now, secret="whsec_" + base64.b64encode(b"other").decode())
    assert signature_fault(good, b"{}", secret=SECRET, now=now) is None
    both = {**good, "webhook-signature": f"v1a,x v1,%%% {other['webhook-signature']} {good['webhook-signature']}"}
    assert signature_fault(both, b"{}", secret=SECRET, now=now) is None
    assert signature_fault(other, b"{}", secret=SECRET, now=now) == "wrong signature"
    assert signature_fault(good, b"{ }", secret=SECRET, now=now) == "wrong signature"
    assert signature_fault({**good, "webhook-id": "msg_2"}, b"{}", secret=SECRET, now=now) == "wrong signature"
    assert signature_fault(good, b"{}", secret=SECRET, now=now + 301) == "webhook-timestamp is too far from now"
    assert signature_fault({**good, "webhook-timestamp": "soon"}, b"{}", secret=SECRET, now=now) is not None
