"""An application with a route of every shape and every kind of ending, behind the API's middleware."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
from fastapi import APIRouter, FastAPI, HTTPException, Request
from prometheus_client.samples import Sample
from starlette.background import BackgroundTask
from starlette.responses import JSONResponse, PlainTextResponse, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from services.shared import tracing
from services.shared.metrics import ProcessMetrics
from services.shared.server import serve
from services.ui_iot.http.problem_handlers import install_problem_handlers
from services.ui_iot.middleware.path_template import PathTemplates
from services.ui_iot.middleware.trace import TraceMiddleware
from tests.support.processes import free_port
from tests.support.raw_http import RawConnection, status_of
from tests.support.wait import until


class Measured:
    """An application behind the middleware, with its metrics."""

    def __init__(self, app: ASGIApp, routes: Any = ()) -> None:
        self.metrics = ProcessMetrics("ui_iot")
        self.templates = PathTemplates(routes)
        self.app = TraceMiddleware(
            app, metrics=self.metrics, templates=self.templates, unmeasured=frozenset(("/livez",))
        )

    def samples(self, name: str) -> list[Sample]:
        """Return all samples of this name."""
        return [
            sample for family in self.metrics.registry.collect() for sample in family.samples if sample.name == name
        ]

    def requests(self, what: str = "count") -> dict[tuple[str, ...], float]:
        """Return the observations (or their sum) by method, template and status."""
        return self._by_label(f"pulse_http_request_duration_seconds_{what}", "method", "path_template", "status_code")

    def value(self, name: str) -> float | None:
        """Return a sample without labels."""
        return self.metrics.registry.get_sample_value(name)

    @asynccontextmanager
    async def client(self) -> AsyncIterator[httpx.AsyncClient]:
        """Yield a client that receives the responses that a server would send."""
        transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://api.test") as client:
            yield client

    def _by_label(self, name: str, *labels: str) -> dict[tuple[str, ...], float]:
        return {tuple(sample.labels[label] for label in labels): sample.value for sample in self.samples(name)}


@asynccontextmanager
async def served(app: ASGIApp) -> AsyncIterator[int]:
    """Yield the port of the application, served by uvicorn as the services run it."""
    stop, port = asyncio.Event(), free_port()
    server = asyncio.create_task(serve(app, host="127.0.0.1", port=port, stop=stop))
    try:

        async def answers() -> bool:
            try:
                async with RawConnection(port) as connection:
                    connection.request("GET", "/livez")
                    return status_of(await connection.read_all()) is not None
            except ConnectionRefusedError:
                return False

        await until(answers)
        yield port
    finally:
        stop.set()
        await server


class Gates:
    """Gates at which requests wait until their test opens them."""

    def __init__(self) -> None:
        self._events: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)

    async def wait(self, key: str) -> None:
        """Wait until open(key)."""
        await self._events[key].wait()

    def open(self, key: str) -> None:
        """Let the waiting request continue."""
        self._events[key].set()


def make_app(gates: Gates) -> FastAPI:
    """Return an application with included and nested routes, whose responses end in every way."""
    api = FastAPI(redirect_slashes=False)
    install_problem_handlers(api)
    items = APIRouter(prefix="/items")

    @items.get("/{item_id}")
    async def get_item(item_id: str) -> dict[str, str | None]:
        return {"item": item_id, "trace_id": tracing.current_trace_id()}

    @items.post("/{item_id}/parts/{part}")
    async def post_part(item_id: str, part: int) -> int:
        return part

    outer = APIRouter(prefix="/v2")
    outer.include_router(items, prefix="/shop")
    api.include_router(items, prefix="/v1")
    api.include_router(outer, prefix="/api")
    _add_endings(api, gates)
    api.router.routes.append(Route("/plain", _plain, methods=["GET", "OPTIONS"]))
    return api


async def _plain(_request: Request) -> PlainTextResponse:
    return PlainTextResponse("plain")


class _Half:
    """A response that breaks after its first chunk."""

    async def __call__(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        raise RuntimeError("broken")


def _add_endings(api: FastAPI, gates: Gates) -> None:
    @api.get("/teapot")
    async def teapot() -> None:
        raise HTTPException(418)

    @api.get("/wrong")
    async def wrong() -> None:
        raise RuntimeError("secret detail")

    @api.get("/cancelled")
    async def cancelled() -> None:
        raise asyncio.CancelledError

    @api.get("/stream/{key}")
    async def stream(key: str) -> StreamingResponse:
        async def body() -> AsyncIterator[bytes]:
            yield b"first"
            await gates.wait(key)
            yield b"last"

        return StreamingResponse(body())

    @api.get("/background/{key}")
    async def background(key: str) -> JSONResponse:
        return JSONResponse(key, background=BackgroundTask(gates.wait, key))

    @api.get("/patient")
    async def patient(request: Request) -> str:
        await until(request.is_disconnected)
        return "nobody is there to hear"

    @api.post("/upload")
    async def upload(request: Request) -> int:
        return len(await request.body())

    @api.get("/files/{path:path}")
    async def files(path: str) -> str:
        return path

    api.router.routes.append(Route("/half/{path}", _Half()))
