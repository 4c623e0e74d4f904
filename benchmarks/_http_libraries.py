"""Middleware of other libraries, set up as their documentation shows."""

import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from prometheus_client import CollectorRegistry

from benchmarks._bench import ROOT

REQUIREMENTS = Path(__file__).with_name("http.requirements.txt")
PLACE = ROOT / ".pulse" / "bench-http"


def install() -> None:
    """Make the libraries importable, downloading them once; their dependencies are Pulse's own packages."""
    kept = PLACE / REQUIREMENTS.name
    if not kept.exists() or kept.read_bytes() != REQUIREMENTS.read_bytes():
        print(f"installing {REQUIREMENTS.name} into {PLACE}, once", file=sys.stderr)
        shutil.rmtree(PLACE, ignore_errors=True)
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--disable-pip-version-check"]
        subprocess.run([*command, "--target", str(PLACE), "--requirement", str(REQUIREMENTS)], check=True)
        shutil.copyfile(REQUIREMENTS, kept)
    # Last: where Pulse has a package itself, that one is meant.
    sys.path.append(str(PLACE))


def with_instrumentator(api: FastAPI) -> FastAPI:
    """prometheus-fastapi-instrumentator: metrics only."""
    library = import_module("prometheus_fastapi_instrumentator")
    library.Instrumentator(registry=CollectorRegistry()).instrument(api)
    return api


def with_starlette_exporter(api: FastAPI) -> FastAPI:
    """starlette-exporter: metrics only, by template."""
    api.add_middleware(import_module("starlette_exporter").PrometheusMiddleware, group_paths=True)
    return api


def with_correlation_id(api: FastAPI) -> FastAPI:
    """asgi-correlation-id: an id in and out, nothing measured."""
    api.add_middleware(import_module("asgi_correlation_id").CorrelationIdMiddleware)
    return api


def with_opentelemetry(api: FastAPI) -> FastAPI:
    """opentelemetry-instrumentation-fastapi: one sampled span a request, handed to a batch that drops it."""
    provider = import_module("opentelemetry.sdk.trace").TracerProvider()
    export = import_module("opentelemetry.sdk.trace.export")

    class Drop(export.SpanExporter):  # type: ignore[misc, name-defined]  # known at run time only
        def export(self, spans: Sequence[Any]) -> Any:
            del spans
            return export.SpanExportResult.SUCCESS

    provider.add_span_processor(export.BatchSpanProcessor(Drop()))
    instrumentor = import_module("opentelemetry.instrumentation.fastapi").FastAPIInstrumentor
    instrumentor.instrument_app(api, tracer_provider=provider)
    return api


LIBRARIES: dict[str, Callable[[FastAPI], FastAPI]] = {
    "instrumentator": with_instrumentator,
    "starlette-exporter": with_starlette_exporter,
    "asgi-correlation-id": with_correlation_id,
    "opentelemetry": with_opentelemetry,
}
