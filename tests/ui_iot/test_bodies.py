"""Hostile bodies exhaust neither the memory nor the event loop of the API."""

import asyncio
import itertools
import re
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import asyncpg
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.types import Message, Receive, Scope, Send

from services.shared.db import Actor
from services.shared.settings import UiSettings
from services.ui_iot.auth.principal import Principal
from services.ui_iot.auth.request_context import SCOPE_KEY
from services.ui_iot.http.json_shape import MOST_LEVELS, PIECE_BYTES, JsonShape
from services.ui_iot.http.problems import Overloaded, TooLarge, Unprocessable
from services.ui_iot.ingest.readings_body import decode_body
from services.ui_iot.limits.body_budget import BodyBudget
from services.ui_iot.limits.turns import Turns
from services.ui_iot.middleware.body_limit import SMALL_BYTES, BodyLimitMiddleware
from tests.support import seed
from tests.support.api_client import Api, open_api
from tests.support.wait import until

PATH = "/ingest/v1/readings"
MIB = 1024 * 1024
JSON = st.recursive(
    st.none() | st.integers(-(2**53), 2**53) | st.text(st.sampled_from('a\\"[]{},:é'), max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4),
    max_leaves=30,
)


def counted(document: Any) -> tuple[int, int]:
    """Commas and opening brackets of a document, and its levels."""
    if not isinstance(document, list | dict):
        return 0, 0
    inner = [counted(item) for item in (document.values() if isinstance(document, dict) else document)]
    values = 1 + max(0, len(inner) - 1) + sum(values for values, _ in inner)
    return values, 1 + max((levels for _, levels in inner), default=0)


def feed(text: bytes, *, most_values: int, cuts: list[int]) -> None:
    """Give a text to a new Shape in pieces."""
    shape = JsonShape(most_values=most_values, setting="a setting")
    places = sorted({0, len(text), *(cut % (len(text) + 1) for cut in cuts)})
    for start, end in itertools.pairwise(places):
        shape.feed(text[start:end])


@given(JSON, st.lists(st.integers(min_value=0), max_size=6), st.booleans())
def test_the_count_is_exact_however_a_text_is_cut(document: Any, cuts: list[int], pretty: bool) -> None:
    """Brackets, commas, quotes and backslashes in strings are not counted."""
    text = orjson.dumps(document, option=orjson.OPT_INDENT_2 if pretty else None)
    values, _ = counted(document)
    feed(text, most_values=values, cuts=cuts)
    if values:
        with pytest.raises(TooLarge, match=f"{values - 1} values \\(a setting\\)"):
            feed(text, most_values=values - 1, cuts=cuts)


@given(st.integers(min_value=1, max_value=MOST_LEVELS + 2), st.sampled_from(["[", '{"a":']), st.integers(1, 50))
def test_levels_are_exact(levels: int, opening: str, repeats: int) -> None:
    """Levels may fall and rise again."""
    closing = {"[": "]", '{"a":': "}"}[opening]
    one = opening * (levels - 1) + '"]"' + closing * (levels - 1)
    text = ("[" + ",".join([one] * repeats) + "]").encode()
    orjson.loads(text)
    if levels <= MOST_LEVELS:
        feed(text, most_values=100_000, cuts=[len(text) // 3])
    else:
        with pytest.raises(Unprocessable, match=f"nested {MOST_LEVELS} deep"):
            feed(text, most_values=100_000, cuts=[len(text) // 3])


@given(st.binary(max_size=300), st.lists(st.integers(min_value=0), max_size=4))
def test_no_bytes_make_the_look_at_a_body_fail(text: bytes, cuts: list[int]) -> None:
    """Bytes that are not JSON are left to the parser."""
    feed(text, most_values=1000, cuts=cuts)


HOSTILE = {
    "empty arrays": (b"[" + b"[]," * 2_700_000 + b"0]", 413),
    "empty objects": (b"[" + b"{}," * 2_700_000 + b"0]", 413),
    "numbers": (b"[" + b"1," * 4_000_000 + b"0]", 413),
    "members": (b"{" + b'"":0,' * 1_600_000 + b'"":0}', 413),
    "a deep nest": (b"[" * 8_000_000, 422),
    "many deep nests": (b"[" + (b"[" * 40 + b"]" * 40 + b",") * 1000 + b"0]", 422),
    "blanks": (b" " * 8_000_000, 400),
    "a long number": (b"[" + b"1" * 8_000_000 + b"]", 202),
    "a long string": (b'["' + b"[]," * 2_600_000 + b'"]', 202),
    "escapes": (b'["' + b"\\\\" * 4_000_000 + b'"]', 202),
    "a string without end": (b'["' + b'\\"' * 4_000_000, 400),
    "nothing at the end": (b'["' + b"a" * 8_000_000 + b'",', 400),
}


@pytest.fixture
async def api(app_url: str, conn: asyncpg.Connection) -> AsyncIterator[Api]:
    """The API with one device."""
    await seed.device(conn)
    async with open_api(app_url) as opened:
        yield opened


async def test_short_bodies_hold_few_values(api: Api) -> None:
    """Every route with a body refuses what would become thousands of objects or errors, also without a caller."""
    values = b",".join(b'"%x":[]' % number for number in range(6000))
    bodies = (b"{" + values + b"}", b'{"issuer":[' + b"[]," * 20_000 + b"0]}", b"[" * 60_000)
    document = (await api.call("GET", "/openapi.json")).json()
    routes = [
        (method.upper(), re.sub(r"\{\w+\}", "1", path))
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
        if "requestBody" in operation and path != PATH
    ]
    assert len(routes) > 10
    for method, path in routes:
        for body in bodies:
            response = await api.call(method, path, content=body)
            assert response.status_code in (413, 422), (method, path, response.text)
            assert re.search("The body may hold 1000 values|nested 32 deep", response.json()["detail"]), (method, path)


async def test_hostile_bodies_make_few_objects(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """A body is parsed only if it cannot hold more values than allowed. Errors name the limit."""
    parsed: list[int] = []
    real = orjson.loads

    def loads(body: bytes) -> Any:
        parsed.append(body.count(b"[]") + body.count(b"{}") if b'"' not in body else 0)
        return real(body)

    monkeypatch.setattr("services.ui_iot.ingest.readings.orjson.loads", loads)
    for name, (body, status) in HOSTILE.items():
        response = await api.call("POST", PATH, content=body)
        found = response.json()
        assert response.status_code == status, (name, found)
        if response.status_code == 413:
            assert "PULSE_INGEST_MAX_READINGS" in found["detail"], name
            assert response.headers["content-type"] == "application/problem+json"
    assert max(parsed) < 100_000
    assert api.backend.bodies.held == 0


async def test_a_body_that_is_too_long_is_read_to_its_end(api: Api) -> None:
    """With Connection: close the server hangs up, and a sending client would see a reset, not the answer."""
    for path in ("/api/v1/rules", PATH):
        refused = await api.call("POST", path, content=b"[" + b" " * (9 * MIB) + b"]")
        assert (refused.status_code, "connection" in refused.headers) == (413, False)


def principal(tenant: str, device: str) -> Principal:
    """Return a device."""
    return Principal(tenant, "device", Actor("device", device))


def test_a_tenant_and_a_caller_have_their_shares() -> None:
    """Bytes refused to one caller remain available to others. The refusal names the limit."""
    budget = BodyBudget(most=100, most_of_caller=30)
    first = budget.hold(principal("a", "1"))
    first.grow(30)
    with pytest.raises(Overloaded, match="PULSE_BODY_BYTES_PER_CALLER") as caller:
        first.grow(1)
    second = budget.hold(principal("a", "2"))
    second.grow(20)
    with pytest.raises(Overloaded, match="half of PULSE_BODY_BYTES_IN_FLIGHT") as tenant:
        second.grow(1)
    others = [budget.hold(principal(name, "1")) for name in "bc"]
    others[0].grow(25)
    others[1].grow(25)
    with pytest.raises(Overloaded, match="PULSE_BODY_BYTES_IN_FLIGHT") as process:
        others[0].grow(1)
    assert [raised.value.status_code for raised in (caller, tenant, process)] == [429, 429, 503]
    assert caller.value.headers == {"Retry-After": "2"}
    for hold in (first, second, *others, others[0]):
        hold.release()
    assert budget.held == 0


class Upload:
    """A request whose body comes when the test sends it."""

    def __init__(self, caller: Principal | None) -> None:
        self.scope: Scope = {"type": "http", "path": PATH, "query_string": b"", "headers": [], "raw_path": b""}
        if caller is not None:
            self.scope[SCOPE_KEY] = SimpleNamespace(principal=caller)
        self.messages: asyncio.Queue[Message] = asyncio.Queue()

    async def receive(self) -> Message:
        """Give the next piece."""
        return await self.messages.get()

    def send_piece(self, size: int, *, more: bool = True) -> None:
        """Add a piece."""
        self.messages.put_nowait({"type": "http.request", "body": b"x" * size, "more_body": more})


@pytest.mark.parametrize("end", ["answered", "disconnected", "canceled", "failed"])
async def test_bytes_are_given_back_however_a_request_ends(end: str) -> None:
    """Received bytes beyond short bodies are held, and none are left afterwards."""
    budget = BodyBudget(most=20 * MIB, most_of_caller=10 * MIB)

    async def app(_scope: Scope, receive: Receive, _send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            if not message["more_body"]:
                if end == "failed":
                    raise RuntimeError("broken")
                return

    middleware = BodyLimitMiddleware(app, ingest_bytes=8 * MIB, budget=budget)
    upload = Upload(principal("a", "1"))

    async def send(_message: Message) -> None:
        """Answer nothing."""

    running = asyncio.create_task(middleware(upload.scope, upload.receive, send))
    upload.send_piece(SMALL_BYTES)
    await _settled(upload)
    assert budget.held == 0
    upload.send_piece(MIB)
    await _settled(upload)
    assert budget.held == SMALL_BYTES + MIB
    match end:
        case "canceled":
            running.cancel()
        case "disconnected":
            upload.messages.put_nowait({"type": "http.disconnect"})
        case _:
            upload.send_piece(10, more=False)
    await asyncio.wait([running])
    assert budget.held == 0


async def test_bodies_that_are_held_open_are_bounded(app_url: str, conn: asyncpg.Connection) -> None:
    """A caller with many unfinished bodies gets 429. Other callers and short bodies are accepted."""
    await seed.device(conn)
    async with open_api(app_url) as api:
        stuck: list[asyncio.Event] = []

        async def stream() -> AsyncIterator[bytes]:
            for _ in range(16):
                yield b" " * (MIB // 4)
            stuck.append(asyncio.Event())
            await stuck[-1].wait()

        requests = [asyncio.create_task(api.call("POST", PATH, content=stream())) for _ in range(60)]
        done: set[Any] = set()
        while len(done) + len(stuck) < len(requests):
            done, _ = await asyncio.wait(requests, timeout=0.05)
        assert api.backend.bodies.held <= api.backend.settings.body_bytes_per_caller
        refused = [task.result() for task in done]
        assert {response.status_code for response in refused} == {429}
        assert "PULSE_BODY_BYTES_PER_CALLER" in refused[0].json()["detail"]
        assert refused[0].headers["retry-after"]
        assert "connection" not in refused[0].headers
        short = {"device_id": "boiler-1", "metric": "heat", "value": 1}
        assert (await api.call("POST", PATH, json=short)).json()["accepted"] == 1
        for event in stuck:
            event.set()
        assert {(await task).status_code for task in requests if task not in done} == {400}
        assert api.backend.bodies.held == 0


async def test_long_bodies_take_turns_with_everything_else() -> None:
    """Between two pieces of a long body the event loop runs other ready tasks."""
    turns = Turns()
    order: list[str] = []
    bodies = [b"[" + b" " * (4 * PIECE_BYTES) + b"1]" for _ in range(3)]

    async def other() -> None:
        while len(order) < 60:
            order.append("other")
            await asyncio.sleep(0)

    async def decode(body: bytes) -> None:
        assert await decode_body(body, turns, most_readings=10) == [1]
        order.append("body")

    await asyncio.gather(other(), *(decode(body) for body in bodies))
    assert order.count("body") == 3
    # Five pieces of each body and its parsing: one at a time, with several passes of the event loop after each.
    assert order.count("other") >= 50


def test_shares_must_hold_one_request(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Settings under which the longest request could never arrive are refused."""
    monkeypatch.setenv("PULSE_DATABASE_URL", "postgresql://nowhere/pulse")
    monkeypatch.setenv("PULSE_BODY_BYTES_PER_CALLER", "4096")
    with pytest.raises(SystemExit):
        UiSettings.load()
    error = capsys.readouterr().err
    assert "PULSE_BODY_BYTES_PER_CALLER must be at least PULSE_INGEST_MAX_BODY_BYTES (8388608)" in error


async def _settled(upload: Upload) -> None:
    """Return when every piece has been taken."""
    await until(upload.messages.empty)
