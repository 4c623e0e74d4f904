"""Spans reach a collector with the ids of our logs, headers and rows, and cost nothing without a collector."""

import asyncio
import logging
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import asyncpg
import httpx
import orjson
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from services.shared import otlp, tracing
from services.shared.http_client import traced_client
from services.shared.logging import JsonFormatter
from services.shared.otlp import spans as otlp_spans
from tests.support import seed
from tests.support.api_client import open_api
from tests.support.delivery import job
from tests.support.migrator import ROOT
from tests.support.processes import ready_service
from tests.support.receiver import Receiver
from tests.support.wait import until

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b7"
SECRET = "whsec_MDEyMzQ1Njc4OWFiY2RlZmdoaWprbG1u"
LOADED = """
import sys
import services.delivery_worker.worker, services.ui_iot.__main__
from services.shared import otlp
with otlp.exporting("ui_iot"):
    assert otlp.tracer_provider() is None
print(*(name for name in sys.modules if name.startswith(("opentelemetry.sdk", "opentelemetry.exporter", "requests"))))
"""


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Receiver:
    """A collector that is not open yet, and the variables for its spans."""
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "20")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=tests")
    return Receiver()


def exported(collector: Receiver) -> list[tuple[dict[str, Any], Span]]:
    """Return the resource's attributes and the span of every export."""
    found = []
    for request in collector.requests:
        assert request.line == "POST /v1/traces HTTP/1.1"
        for resource in ExportTraceServiceRequest.FromString(request.body).resource_spans:
            about = values(resource.resource.attributes)
            found += [(about, span) for scope in resource.scope_spans for span in scope.spans]
    return found


def values(attributes: Any) -> dict[str, Any]:
    """Return the attributes as a dictionary."""
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in attributes}


def ids(span: Span) -> tuple[str, str, str]:
    """Return trace, span and parent."""
    return span.trace_id.hex(), span.span_id.hex(), span.parent_span_id.hex()


@contextmanager
def request_lines() -> Iterator[list[dict[str, Any]]]:
    """Yield the log lines of requests as they are written."""
    written: list[dict[str, Any]] = []
    formatter = JsonFormatter("ui_iot")

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            line = orjson.loads(formatter.format(record))
            written.extend([line] if "path_template" in line else [])

    keep, logger = Keep(), logging.getLogger("services.ui_iot")
    logger.addHandler(keep)
    logger.setLevel(logging.INFO)
    try:
        yield written
    finally:
        logger.removeHandler(keep)
        logger.setLevel(logging.NOTSET)


async def test_requests_passes_and_calls_are_spans_with_our_ids(
    conn: asyncpg.Connection, app_url: str, collector: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FastAPI's spans for requests and ours for the rest have the same ids in header, log line, row and collector."""
    await seed.tenant(conn)
    async with collector, Receiver() as hooks:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        with request_lines() as lines, otlp.exporting("ui_iot"):
            async with open_api(app_url) as api:
                parent = {"traceparent": f"00-{TRACE}-{PARENT}-00", "tracestate": "congo=t61rcWkgMzE"}
                await api.call("GET", "/api/v1/devices?token=hush", headers=parent)
                await api.call("GET", "/api/v1/rules/7", headers={"X-Trace-ID": "ab" * 16})
                await api.client.get("/livez")
            async with open_api(app_url, trust_incoming_trace=False) as api:
                answer = await api.call("GET", "/api/v1/rules", headers=parent)
            served = await until(lambda: found if len(found := exported(collector)) == 3 else None)
        assert isinstance(served, list)
        assert [ids(span) for _about, span in served] == [
            (TRACE, lines[0]["span_id"], PARENT),
            ("ab" * 16, lines[1]["span_id"], ""),
            (answer.headers["x-trace-id"], lines[2]["span_id"], ""),
        ]
        assert answer.headers["x-trace-id"] != TRACE
        about, first = served[0]
        assert (about["service.name"], about["deployment.environment.name"]) == ("pulse-ui_iot", "tests")
        assert about["service.instance.id"]
        assert (first.name, first.kind) == ("GET /api/v1/devices", Span.SPAN_KIND_SERVER)
        assert first.trace_state == "congo=t61rcWkgMzE"
        assert values(first.attributes)["url.query"] == "REDACTED"
        assert b"hush" not in b"".join(request.body for request in collector.requests)

        collector.requests.clear()
        channel = orjson.dumps({"url": f"{hooks.url}/in/hush", "secret": SECRET}).decode()
        number = await job(conn, await seed.channel(conn, config=channel))
        async with ready_service("services.delivery_worker", app_url, allow_private_destinations="true") as worker:
            await until(lambda: conn.fetchval("select true from delivery_attempts"))
            assert await worker.stop() == 0
        by_name = {span.name: (about, span) for about, span in exported(collector)}
        assert by_name.keys() == {"claim", "POST"}
        about, sent = by_name["POST"]
        row = await conn.fetchrow(
            "select trace_id, core.span_id(trace_id, 'attempt', job_id || ':' || attempt),"
            " core.span_id(trace_id, 'job', job_id::text) from delivery_attempts where job_id = $1",
            number,
        )
        assert ids(sent) == tuple(row)
        assert hooks.requests[0].header("traceparent") == f"00-{row[0]}-{row[1]}-01"
        assert (about["service.name"], sent.kind) == ("pulse-delivery_worker", Span.SPAN_KIND_CLIENT)
        assert values(sent.attributes) == {
            "http.request.method": "POST",
            "server.address": "127.0.0.1",
            "server.port": hooks.port,
            "http.response.status_code": 200,
        }
        _about, claim = by_name["claim"]
        assert values(claim.attributes) == {"pulse.operation": "claim", "pulse.rows": 1}
        assert (claim.parent_span_id, claim.trace_id != sent.trace_id) == (b"", True)
        assert b"hush" not in b"".join(request.body for request in collector.requests)


async def test_failures_are_spans_and_a_hung_collector_blocks_no_exit(
    collector: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Errors of calls and passes are spans too; the flush at the end is bounded."""
    monkeypatch.setattr(otlp_spans, "FLUSH_SECONDS", 0.1)

    async def fail() -> int:
        raise ZeroDivisionError

    async def idle() -> int:
        return 0

    async with collector, Receiver() as other, traced_client(allow_private=True) as client:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", f"{collector.url}/v1/traces")
        other.default = 503
        collector.hold.clear()
        with otlp.exporting("dispatcher"):
            assert await otlp.record_pass("dispatch", idle()) == 0
            with pytest.raises(ZeroDivisionError):
                await otlp.record_pass("dispatch", fail())
            with tracing.use_trace_id(TRACE) as context:
                await client.post(other.url)
            with pytest.raises(httpx.NetworkError):
                await client.get("http://127.0.0.1:1/")
            assert tracing.current() is None
            await until(lambda: collector.requests)
        assert otlp.tracer_provider() is None
        collector.hold.set()
        [flushing] = [thread for thread in threading.enumerate() if thread.name == "otlp-flush"]
        await asyncio.to_thread(flushing.join)
        spans = {span.name: span for _about, span in exported(collector)}
    assert {name: values(span.attributes)["error.type"] for name, span in spans.items()} == {
        "dispatch": "ZeroDivisionError",
        "POST": "503",
        "GET": "ConnectError",
    }
    assert ids(spans["POST"])[::2] == (TRACE, context.span_id)
    assert {span.status.code for span in spans.values()} == {2}


def test_nothing_is_loaded_without_an_endpoint() -> None:
    """Without an endpoint, neither the SDK nor the exporter nor their HTTP library is imported."""
    done = subprocess.run(
        [sys.executable, "-c", LOADED], cwd=ROOT, capture_output=True, text=True, check=True, env={"PATH": "/usr/bin"}
    )
    assert done.stdout.split() == []


def test_a_missing_extra_or_a_wrong_variable_is_one_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The process runs without spans, because alerts matter more."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "-1")
    with otlp.exporting("ui_iot"):
        assert otlp.tracer_provider() is None
    monkeypatch.delitem(sys.modules, "services.shared.otlp.spans")
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with otlp.exporting("ui_iot"):
        assert otlp.tracer_provider() is None
    wrong, missing = [record.getMessage() for record in caplog.records]
    assert wrong.startswith("no spans are exported: ValueError: max_queue_size")
    assert (
        missing
        == "no spans are exported: opentelemetry.sdk.trace is not installed: pip install '.[otlp]' in the checkout"
    )
    caplog.clear()
    for name, value in (("OTEL_SDK_DISABLED", "true"), ("OTEL_TRACES_EXPORTER", "none")):
        with monkeypatch.context() as patch:
            patch.setenv(name, value)
            assert not otlp.is_wanted()
    for value in ("", "otlp", "console, otlp"):
        monkeypatch.setenv("OTEL_TRACES_EXPORTER", value)
        assert otlp.is_wanted()
    assert caplog.records == []
