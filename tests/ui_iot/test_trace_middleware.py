"""The outermost layer: trace ids, one log line and one observation per request, for any application."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.background import BackgroundTask
from starlette.responses import JSONResponse, PlainTextResponse, StreamingResponse
from starlette.types import Message, Receive, Scope, Send

from services.shared import tracing
from tests.support.http_app import Gates, Measured, make_app

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE}-b7ad6b7169203331-01"
OTHER = "f" * 31 + "e"


@pytest.fixture
def measured() -> Measured:
    api = make_app(Gates())
    return Measured(api, api.routes)


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"traceparent": PARENT}, TRACE),
        ({"X-Trace-ID": TRACE}, TRACE),
        ({"X-Trace-ID": "0AF76519-16CD-43DD-8448-EB211C80319C"}, TRACE),
        ({"traceparent": PARENT, "X-Trace-ID": OTHER}, TRACE),
        ({"traceparent": "rubbish", "X-Trace-ID": OTHER}, OTHER),
        ({}, None),
        ({"X-Trace-ID": TRACE.upper()}, None),
        ({"X-Trace-ID": "0" * 32}, None),
        ({"X-Trace-ID": TRACE + "0"}, None),
        ({"X-Trace-ID": "{" + TRACE + "}"}, None),
        ({"X-Trace-ID": "urn:uuid:0af76519-16cd-43dd-8448-eb211c80319c"}, None),
        ({"X-Trace-ID": "x" * 5000}, None),
        ({"traceparent": "ff" + PARENT[2:]}, None),
        ({"traceparent": PARENT + "-more"}, None),
        ({"traceparent": PARENT.upper()}, None),
        ({"traceparent": "00-" + "0" * 32 + PARENT[35:]}, None),
    ],
)
async def test_the_trace_id_of_the_caller_is_kept_when_it_is_one(
    measured: Measured, headers: dict[str, str], expected: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    """Otherwise it gets a new id, and the invalid one is not logged."""
    caplog.set_level("DEBUG")
    async with measured.client() as client:
        response = await client.get("/v1/items/7", headers=headers)
    found = response.headers["x-trace-id"]
    assert tracing.parse_trace_id(found) == found
    assert response.json()["trace_id"] == found
    if expected is None:
        assert found != TRACE
        for value in headers.values():
            assert value not in caplog.text + repr([vars(record) for record in caplog.records])
    else:
        assert found == expected
    assert tracing.current() is None


async def test_two_traceparents_are_none(measured: Measured) -> None:
    """W3C Trace Context: with two headers the parent is ambiguous."""
    async with measured.client() as client:
        response = await client.get("/plain", headers=[("traceparent", PARENT), ("traceparent", PARENT)])
    assert response.headers["x-trace-id"] != TRACE


@pytest.mark.parametrize(
    ("path", "template", "status"),
    [
        ("/plain", "/plain", 200),
        ("/v1/items/7", "/v1/items/{item_id}", 200),
        ("/v1/items/7/parts/2", "/v1/items/{item_id}/parts/{part}", 405),
        ("/api/v2/shop/items/7", "/api/v2/shop/items/{item_id}", 200),
        ("/files/a/b/c", "/files/{path}", 200),
        ("/teapot", "/teapot", 418),
        ("/wrong", "/wrong", 500),
        ("/nowhere", "__unmatched__", 404),
        ("/v1/items", "__unmatched__", 404),
        ("/openapi.json", "/openapi.json", 200),
    ],
)
async def test_the_path_label_is_the_route_as_declared(
    measured: Measured, path: str, template: str, status: int
) -> None:
    async with measured.client() as client:
        response = await client.get(path)
    assert response.status_code == status
    assert measured.requests() == {("GET", template, str(status)): 1.0}
    assert response.headers["x-trace-id"]


async def test_methods_are_a_closed_list(measured: Measured) -> None:
    async with measured.client() as client:
        for method in ("GET", "HEAD", "OPTIONS", "FOO", "BAR", "get", "G" * 5000):
            await client.request(method, "/plain")
    assert {key[0] for key in measured.requests()} == {"GET", "HEAD", "OPTIONS", "_OTHER"}


async def test_each_request_writes_one_log_line(measured: Measured, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with measured.client() as client:
        await client.get("/v1/items/7?token=hidden", headers={"X-Trace-ID": TRACE})
        await client.get("/livez")
    [record] = [record for record in caplog.records if record.name.startswith("services.ui_iot")]
    fields = vars(record)
    assert record.getMessage() == "GET /v1/items/{item_id} 200"
    assert (fields["method"], fields["path"], fields["status_code"]) == ("GET", "/v1/items/7", 200)
    assert fields["path_template"] == "/v1/items/{item_id}"
    assert 0 < fields["duration_ms"] < 5000
    assert "hidden" not in repr(fields)


async def test_a_crash_is_answered_logged_and_counted(measured: Measured, caplog: pytest.LogCaptureFixture) -> None:
    """The response has the trace id, and the exception is logged as an error."""
    async with measured.client() as client:
        response = await client.get("/wrong", headers={"X-Trace-ID": TRACE})
    assert (response.status_code, response.headers["x-trace-id"]) == (500, TRACE)
    [line] = [record for record in caplog.records if record.name == "services.ui_iot.middleware.http_meter"]
    assert line.levelname == "ERROR"
    assert measured.requests() == {("GET", "/wrong", "500"): 1.0}


async def test_probes_are_traced_and_not_measured(measured: Measured) -> None:
    async with measured.client() as client:
        assert (await client.get("/livez", headers={"X-Trace-ID": TRACE})).headers["x-trace-id"] == TRACE
    assert measured.requests() == {}


Handler = Callable[[Scope, Receive, Send], Awaitable[None]]


async def run(
    handler: Handler, *, receive: Receive | None = None
) -> tuple[Measured, list[Message], BaseException | None]:
    """Send one request to a bare application. Return the messages and the exception."""
    measured = Measured(handler)
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    messages: list[Message] = [{"type": "http.request", "body": b"", "more_body": False}]

    async def nothing() -> Message:
        if not messages:
            await asyncio.Event().wait()  # a client that stays
        return messages.pop()

    scope = {"type": "http", "method": "GET", "path": "/x", "headers": [], "query_string": b""}
    caught: BaseException | None = None
    try:
        await measured.app(scope, receive or nothing, send)
    except BaseException as error:  # noqa: BLE001  # what comes out is what is looked at
        caught = error
    return measured, sent, caught


async def start(send: Send, status: int = 200) -> None:
    await send({"type": "http.response.start", "status": status, "headers": []})


async def test_an_exception_after_the_head_counts_as_500_and_reaches_the_server() -> None:
    """The client got 200 and a partial body. The server must abort the connection, and SLOs count a failure."""

    async def handler(scope: Scope, receive: Receive, send: Send) -> None:
        await start(send)
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        raise RuntimeError("broken")

    measured, sent, caught = await run(handler)
    assert isinstance(caught, RuntimeError)
    assert len(sent) == 2
    assert measured.requests() == {("GET", "__unmatched__", "500"): 1.0}


async def test_an_exception_after_the_whole_response_changes_nothing() -> None:
    """A failed background task is not a failure of the request."""

    async def fail() -> None:
        raise RuntimeError("later")

    response = JSONResponse({}, background=BackgroundTask(fail))
    measured, sent, caught = await run(response)
    assert caught is None
    assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]
    assert measured.requests() == {("GET", "__unmatched__", "200"): 1.0}


async def test_a_response_that_never_came_counts_as_client_gone() -> None:
    async def handler(scope: Scope, receive: Receive, send: Send) -> None:
        return

    measured, _, caught = await run(handler)
    assert caught is None
    assert measured.requests() == {("GET", "__unmatched__", "499"): 1.0}


async def test_a_message_that_the_application_keeps_stays_as_it_is() -> None:
    """Otherwise reused messages would accumulate trace ids."""
    head: Message = {"type": "http.response.start", "status": 204, "headers": []}

    async def handler(scope: Scope, receive: Receive, send: Send) -> None:
        await send(head)
        await send({"type": "http.response.body"})

    _, sent, _ = await run(handler)
    assert head == {"type": "http.response.start", "status": 204, "headers": []}
    assert [name for name, _ in sent[0]["headers"]] == [b"x-trace-id"]


class Cycle:
    """The owner of uvicorn's send, which knows whether the client is connected."""

    def __init__(self, *, disconnected: bool) -> None:
        self.disconnected = disconnected

    async def send(self, message: Message) -> None:
        """Discard the message."""


@pytest.mark.parametrize(
    ("disconnected", "status", "counted"),
    [(False, 200, "200"), (True, 200, "499"), (True, 404, "499"), (True, 503, "503"), (False, None, "500")],
)
async def test_an_unreceived_answer_counts_as_client_gone_unless_it_failed(
    disconnected: bool, status: int | None, counted: str
) -> None:
    """An application that leaves its response unfinished, with the client connected, has failed."""

    async def handler(scope: Scope, receive: Receive, send: Send) -> None:
        if status is not None:
            await PlainTextResponse("", status)(scope, receive, send)

    measured = Measured(handler)
    scope = {"type": "http", "method": "GET", "path": "/x", "headers": [], "query_string": b""}
    await measured.app(scope, asyncio.Event().wait, Cycle(disconnected=disconnected).send)  # type: ignore[arg-type]  # never called
    assert measured.requests() == {("GET", "__unmatched__", counted): 1.0}


async def test_a_cancelled_request_is_counted_and_stays_cancelled() -> None:
    async def handler(scope: Scope, receive: Receive, send: Send) -> None:
        raise asyncio.CancelledError

    measured, _, caught = await run(handler)
    assert isinstance(caught, asyncio.CancelledError)
    assert measured.requests() == {("GET", "__unmatched__", "500"): 1.0}
    assert measured.value("pulse_http_requests_in_progress") == 0


async def test_the_duration_ends_with_the_last_byte(monkeypatch: pytest.MonkeyPatch) -> None:
    """A streamed body is measured to its end, without background tasks. The test controls the clock."""
    now = [100.0]
    monkeypatch.setattr("services.ui_iot.middleware.exchange.time.perf_counter", lambda: now[0])

    async def body() -> AsyncIterator[bytes]:
        for _ in range(3):
            now[0] += 1.0
            yield b"x"

    async def background() -> None:
        now[0] += 50.0

    measured, _, _ = await run(StreamingResponse(body(), background=BackgroundTask(background)))
    [family] = measured.metrics.http_request_duration.collect()
    [total] = [sample.value for sample in family.samples if sample.name.endswith("_sum")]
    assert total == 3.0


async def test_requests_in_progress_rise_and_fall() -> None:
    entered, release = asyncio.Event(), asyncio.Event()

    async def handler(scope: Scope, receive: Receive, send: Send) -> None:
        entered.set()
        await release.wait()
        await PlainTextResponse("done")(scope, receive, send)

    measured = Measured(handler)
    async with measured.client() as client:
        request = asyncio.create_task(client.get("/x"))
        await entered.wait()
        assert measured.value("pulse_http_requests_in_progress") == 1
        release.set()
        await request
    assert measured.value("pulse_http_requests_in_progress") == 0


@given(
    headers=st.lists(
        st.tuples(st.sampled_from([b"traceparent", b"x-trace-id", b"host", b"baggage"]), st.binary(max_size=80)),
        max_size=5,
    ),
    path=st.text(max_size=40),
    method=st.text(max_size=10),
)
@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
async def test_no_header_path_or_method_breaks_it(
    measured: Measured, headers: list[tuple[bytes, bytes]], path: str, method: str
) -> None:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    scope = {
        "type": "http",
        "method": method,
        "path": "/" + path,
        "root_path": "",
        "headers": headers,
        "query_string": b"",
    }
    await measured.app(scope, receive, send)
    found = dict(sent[0]["headers"])[b"x-trace-id"].decode()
    assert tracing.parse_trace_id(found) == found
    assert measured.value("pulse_http_measuring_errors_total") == 0
