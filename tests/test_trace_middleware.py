"""The outermost layer: trace id in and out, one log line, one observation, whatever the application does."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from fastapi import APIRouter, FastAPI, HTTPException
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client import generate_latest
from starlette.background import BackgroundTask
from starlette.responses import JSONResponse, PlainTextResponse, StreamingResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.shared import tracing
from services.shared.metrics import ProcessMetrics
from services.shared.server import serve
from services.ui_iot.middleware.path_template import PathTemplates
from services.ui_iot.middleware.trace import TraceMiddleware
from tests.processes import free_port
from tests.wait import until

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE}-b7ad6b7169203331-01"
OTHER = "f" * 31 + "e"


class Measured:
    """An application behind the middleware, with its metrics."""

    def __init__(self, app: ASGIApp, routes: Any = ()) -> None:
        self.metrics = ProcessMetrics("ui_iot")
        self.app = TraceMiddleware(
            app, metrics=self.metrics, templates=PathTemplates(routes), unmeasured=frozenset(("/livez",))
        )

    def counts(self) -> dict[tuple[str, str, str], float]:
        """Observations by method, template and status."""
        [family] = self.metrics.http_request_duration.collect()
        return {
            (sample.labels["method"], sample.labels["path_template"], sample.labels["status_code"]): sample.value
            for sample in family.samples
            if sample.name.endswith("_count")
        }

    def value(self, name: str) -> float | None:
        """A sample without labels."""
        return self.metrics.registry.get_sample_value(name)

    @asynccontextmanager
    async def client(self) -> AsyncIterator[httpx.AsyncClient]:
        """A client that sees what a server would send."""
        transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://api.test") as client:
            yield client


def example() -> FastAPI:
    """Routes of every shape: included, nested, mounted, streaming, failing."""
    api = FastAPI()
    items = APIRouter(prefix="/items")

    @items.get("/{item_id}")
    async def get_item(item_id: str) -> dict[str, str | None]:
        return {"item": item_id, "trace_id": tracing.current_trace_id()}

    @items.get("/{item_id}/parts/{part}")
    async def get_part(item_id: str, part: int) -> int:
        return part

    outer = APIRouter(prefix="/v2")
    outer.include_router(items, prefix="/shop")
    api.include_router(items, prefix="/v1")
    api.include_router(outer, prefix="/api")

    @api.get("/plain")
    async def plain() -> str:
        return "plain"

    @api.get("/wrong")
    async def wrong() -> None:
        raise RuntimeError("secret detail")

    @api.get("/teapot")
    async def teapot() -> None:
        raise HTTPException(418)

    @api.get("/files/{path:path}")
    async def files(path: str) -> str:
        return path

    sub = FastAPI()

    @sub.get("/things/{thing}")
    async def thing(thing: str) -> str:
        return thing

    api.mount("/tenant/{tenant}", sub)
    api.mount("/static", PlainTextResponse("static"))
    return api


@pytest.fixture
def measured() -> Measured:
    api = example()
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
    """Else there is a new one, and what was refused is written nowhere."""
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
    """W3C Trace Context: which of them is the parent is anybody's guess."""
    async with measured.client() as client:
        response = await client.get("/plain", headers=[("traceparent", PARENT), ("traceparent", PARENT)])
    assert response.headers["x-trace-id"] != TRACE


@pytest.mark.parametrize(
    ("path", "template", "status"),
    [
        ("/plain", "/plain", 200),
        ("/v1/items/7", "/v1/items/{item_id}", 200),
        ("/v1/items/7/parts/2", "/v1/items/{item_id}/parts/{part}", 200),
        ("/v1/items/7/parts/x", "/v1/items/{item_id}/parts/{part}", 422),
        ("/api/v2/shop/items/7", "/api/v2/shop/items/{item_id}", 200),
        ("/files/a/b/c", "/files/{path}", 200),
        ("/teapot", "/teapot", 418),
        ("/wrong", "/wrong", 500),
        ("/nowhere", "__unmatched__", 404),
        ("/v1/items", "__unmatched__", 404),
        ("/tenant/acme/things/7", "/tenant/{tenant}/things/{thing}", 200),
        ("/tenant/acme/nothing", "/tenant/{tenant}/{path}", 404),
        ("/static/x.js", "/static/{path}", 200),
        ("/openapi.json", "/openapi.json", 200),
    ],
)
async def test_the_path_label_is_the_route_as_declared(
    measured: Measured, path: str, template: str, status: int
) -> None:
    async with measured.client() as client:
        response = await client.get(path)
    assert response.status_code == status
    assert measured.counts() == {("GET", template, str(status)): 1.0}
    assert response.headers["x-trace-id"]


async def test_the_template_is_fastapis_own() -> None:
    """FastAPI's telemetry finds the route from inside; it is the oracle, where FastAPI is new enough to have it."""
    oracle = pytest.importorskip("fastapi.telemetry._api")
    api = example()
    seen: list[str | None] = []

    async def watched(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            scope["fastapi.telemetry"] = spy = oracle._RequestTelemetry(  # noqa: SLF001  # what it fills in
                span=None, span_method="", tracer=None, logger=None, _mount_prefix=""
            )
            await api(scope, receive, send)
            seen.append(spy.route)

    measured = Measured(watched, api.routes)
    paths = [
        *("/plain", "/v1/items/7", "/v1/items/7/parts/2", "/api/v2/shop/items/7", "/files/a/b", "/nowhere"),
        *("/tenant/acme/things/7", "/tenant/acme/nothing", "/static/x", "/docs", "/openapi.json"),
    ]
    async with measured.client() as client:
        for path in paths:
            await client.get(path)
    templates = [key[1] for key in measured.counts()]
    assert templates == [route or "__unmatched__" for route in seen]


async def test_methods_are_a_closed_list(measured: Measured) -> None:
    async with measured.client() as client:
        for method in ("GET", "HEAD", "OPTIONS", "FOO", "BAR", "get", "G" * 5000):
            await client.request(method, "/plain")
    assert {key[0] for key in measured.counts()} == {"GET", "HEAD", "OPTIONS", "_OTHER"}


async def test_no_byte_of_a_client_becomes_a_label(measured: Measured) -> None:
    """However it is spelled: the series stay few and hold nothing of it."""
    async with measured.client() as client:
        for number in range(300):
            mark = f"evil{number}"
            paths = (f"/{mark}", f"/v1/items/{mark}", f"/tenant/{mark}/things/{mark}", f"/files/{mark}/x")
            await client.request(
                ("GET", f"M{mark}", "POST")[number % 3],
                paths[number % 4] + f"?q={mark}",
                headers={"Host": f"{mark}.test", "User-Agent": mark, "X-Trace-ID": mark, "X-Forwarded-For": mark},
            )
    exposed = generate_latest(measured.metrics.registry).decode()
    assert "evil" not in exposed
    assert len(measured.counts()) <= 4 * 3 * 3
    assert sum(measured.counts().values()) == 300


async def test_one_log_line_tells_of_a_request(measured: Measured, caplog: pytest.LogCaptureFixture) -> None:
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
    """With its trace id, and as an error line."""
    async with measured.client() as client:
        response = await client.get("/wrong", headers={"X-Trace-ID": TRACE})
    assert (response.status_code, response.headers["x-trace-id"]) == (500, TRACE)
    [line] = [record for record in caplog.records if record.name == "services.ui_iot.middleware.trace"]
    assert line.levelname == "ERROR"
    assert measured.counts() == {("GET", "/wrong", "500"): 1.0}


async def test_probes_are_traced_and_not_measured(measured: Measured) -> None:
    async with measured.client() as client:
        assert (await client.get("/livez", headers={"X-Trace-ID": TRACE})).headers["x-trace-id"] == TRACE
    assert measured.counts() == {}


Handler = Callable[[Scope, Receive, Send], Awaitable[None]]


async def run(
    handler: Handler, *, receive: Receive | None = None
) -> tuple[Measured, list[Message], BaseException | None]:
    """One request to a bare application; what was sent, and what came out as an exception."""
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
    """The client has seen 200 and half a body; the server must cut the connection, and an SLO must see a failure."""

    async def handler(scope: Scope, receive: Receive, send: Send) -> None:
        await start(send)
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        raise RuntimeError("broken")

    measured, sent, caught = await run(handler)
    assert isinstance(caught, RuntimeError)
    assert len(sent) == 2
    assert measured.counts() == {("GET", "__unmatched__", "500"): 1.0}


async def test_an_exception_after_the_whole_response_changes_nothing() -> None:
    """A background task that fails is not the request's failure."""

    async def fail() -> None:
        raise RuntimeError("later")

    response = JSONResponse({}, background=BackgroundTask(fail))
    measured, sent, caught = await run(response)
    assert caught is None
    assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]
    assert measured.counts() == {("GET", "__unmatched__", "200"): 1.0}


async def test_a_response_that_never_came_counts_as_client_gone() -> None:
    async def handler(scope: Scope, receive: Receive, send: Send) -> None:
        return

    measured, _, caught = await run(handler)
    assert caught is None
    assert measured.counts() == {("GET", "__unmatched__", "499"): 1.0}


async def test_a_cancelled_request_is_counted_and_stays_cancelled() -> None:
    async def handler(scope: Scope, receive: Receive, send: Send) -> None:
        raise asyncio.CancelledError

    measured, _, caught = await run(handler)
    assert isinstance(caught, asyncio.CancelledError)
    assert measured.counts() == {("GET", "__unmatched__", "500"): 1.0}
    assert measured.value("pulse_http_requests_in_progress") == 0


async def test_the_duration_ends_with_the_last_byte(monkeypatch: pytest.MonkeyPatch) -> None:
    """A streamed body is measured to its end, a background task not at all. The clock is the test's."""
    now = [100.0]
    monkeypatch.setattr("services.ui_iot.middleware.trace.time.perf_counter", lambda: now[0])

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


@pytest.mark.parametrize("broken", ["labels", "of", "from_headers", "handle"])
async def test_a_fault_in_measuring_changes_no_response(
    measured: Measured, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    """Fail open: it is counted, and the client sees what it would have seen."""

    def fail(*_args: Any, **_rest: Any) -> Any:
        raise RuntimeError("measuring is broken")

    async with measured.client() as client:
        whole = await client.get("/v1/items/7", headers={"X-Trace-ID": TRACE})
        owner: Any = {
            "labels": measured.metrics.http_request_duration,
            "of": measured.app._templates,  # noqa: SLF001  # broken on purpose
            "from_headers": tracing,
            "handle": logging.getLogger("services.ui_iot.middleware.trace"),
        }[broken]
        monkeypatch.setattr(owner, broken, fail)
        response = await client.get("/v1/items/8", headers={"X-Trace-ID": TRACE})
        crash = await client.get("/wrong", headers={"X-Trace-ID": TRACE})
    assert (whole.status_code, response.status_code, crash.status_code) == (200, 200, 500)
    assert response.json()["item"] == "8"
    assert [name for name, _ in response.headers.items()] == [name for name, _ in whole.headers.items()]
    errors = measured.value("pulse_http_measuring_errors_total")
    assert errors is not None
    assert errors >= 1
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


async def test_over_a_real_server_the_same_holds(measured: Measured) -> None:
    """Uvicorn sends what the middleware adds, and a crash too."""
    stop, port = asyncio.Event(), free_port()
    server = asyncio.create_task(serve(measured.app, host="127.0.0.1", port=port, stop=stop))
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:

            async def answers() -> bool:
                try:
                    return (await client.get("/livez")).status_code == 404
                except httpx.ConnectError:
                    return False

            await until(answers)
            for path, status in (("/plain", 200), ("/wrong", 500), ("/nowhere", 404), ("/v1/items/7", 200)):
                response = await client.get(path, headers={"traceparent": PARENT})
                assert (response.status_code, response.headers["x-trace-id"]) == (status, TRACE)
            odd = await client.request("BREW", "/plain")
            assert (odd.status_code, bool(odd.headers["x-trace-id"])) == (405, True)
    finally:
        stop.set()
        await server
    assert sum(measured.counts().values()) == 5
    assert ("_OTHER", "/plain", "405") in measured.counts()
