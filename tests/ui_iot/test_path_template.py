"""The path label is the route that FastAPI chose, on random applications."""

import importlib.util
import itertools
import os
import random
import re
from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import APIRouter, FastAPI
from opentelemetry.metrics import Meter, MeterProvider, NoOpHistogram, NoOpMeter
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import Message, Scope

from services.ui_iot.middleware.path_template import UNMATCHED, PathTemplates

# PULSE_TEST_GENERATED_APPS sets the number of generated applications.
APPLICATIONS = int(os.environ.get("PULSE_TEST_GENERATED_APPS", "60"))
REQUESTS = 25
# FastAPI reports the matched route since it measures itself. Before, only the endpoints know their declared path.
REPORTS_ITS_ROUTE = importlib.util.find_spec("fastapi.telemetry") is not None
# Few words, so that routes overlap and paths match them. A segment in braces matches any word.
# Each # becomes a new name, because a path cannot repeat one.
SEGMENTS = ("a", "b", "a-b", "{#}", "{#}", "{#:int}", "v{#}", "{#}.json")
PREFIXES = ("/a", "/b", "/{#}", "/a/b")
WORDS = ("a", "b", "a-b", "7", "va", "a.json", "x y", "é", "")
METHODS = ("GET", "POST", "DELETE")

Endpoint = Callable[[], Awaitable[Response]]


class _Routes(NoOpHistogram):
    """The histogram in which FastAPI observes durations. It keeps the routes."""

    def __init__(self) -> None:
        super().__init__("routes")
        self.seen: list[str | None] = []

    def record(self, _amount: float, attributes: Any = None, _context: Any = None) -> None:
        self.seen.append(attributes.get("http.route"))


class _Meters(MeterProvider):
    """A meter provider that gives that histogram to FastAPI."""

    def __init__(self) -> None:
        self.routes = _Routes()

    def get_meter(self, name: str, *_args: Any, **_options: Any) -> Meter:
        meter = NoOpMeter(name)
        meter.create_histogram = lambda *_args, **_options: self.routes  # type: ignore[method-assign]  # a test's meter
        return meter


class Application:
    """Random included and nested routers that overlap. Each endpoint notes its declared path."""

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(seed)
        self._names = itertools.count()
        self.declared: list[str] = []
        self._paths: list[str] = []
        self.meters = _Meters()
        # Redirects are off, as in the API, because they would use the client's Host header.
        self.api = FastAPI(redirect_slashes=False, openapi_url=None, telemetry={"meter_provider": self.meters})
        self._fill(self.api, "", 2)

    async def ask(self, method: str, path: str) -> Scope:
        """Send one request and return its scope afterwards."""
        scope = make_scope(method, path)

        async def receive() -> Message:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Message) -> None:
            """Discard the message."""

        self.declared.clear()
        await self.api(scope, receive, send)
        return scope

    def request(self) -> tuple[str, str]:
        """Return a method and a path, of which most lead somewhere near a route."""
        path = "/".join(["", *self._chance.choices(WORDS, k=self._chance.randrange(4))])
        if self._paths and self._chance.random() < 0.8:
            path = re.sub(r"{\w+:?(\w*)}", self._fill_in, self._chance.choice(self._paths))
        return self._chance.choice((*METHODS, "HEAD", "OPTIONS", "BREW")), path or "/"

    def _fill_in(self, parameter: re.Match[str]) -> str:
        return "7" if parameter[1] == "int" else self._chance.choice(WORDS)

    def _fill(self, router: APIRouter | FastAPI, outside: str, depth: int, *, own: str = "") -> None:
        # A router's own prefix is FastAPI's: Starlette's routes in it go without.
        for _ in range(self._chance.randrange(1, 5)):
            kind = self._chance.random() if depth else 0.0
            if kind < 0.5:
                path = self._path()
                router.add_api_route(path, self._endpoint(outside + own + path), methods=self._methods())
            elif kind < 0.6:
                path = self._path()
                endpoint = self._starlette_endpoint(self._endpoint(outside + path))
                router.routes.append(Route(path, endpoint, methods=self._methods()))
            else:
                inner, given = APIRouter(prefix=self._prefix(), redirect_slashes=False), self._chance.choice(("", "/c"))
                self._fill(inner, outside + given + own, depth - 1, own=inner.prefix)
                router.include_router(inner, prefix=given)

    def _endpoint(self, template: str) -> Endpoint:
        self._paths.append(template)
        template = re.sub(r":\w+}", "}", template)

        async def endpoint() -> Response:
            self.declared.append(template)
            return PlainTextResponse(template)

        return endpoint

    def _starlette_endpoint(self, answer: Endpoint) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(_request: Request) -> Response:
            return await answer()

        return endpoint

    def _prefix(self) -> str:
        return self._chance.choice(PREFIXES).replace("#", f"p{next(self._names)}")

    def _path(self) -> str:
        segments = self._chance.choices(SEGMENTS, k=self._chance.randrange(1, 4))
        if self._chance.random() < 0.1:
            segments.append("{#:path}")
        return "".join("/" + segment.replace("#", f"x{next(self._names)}") for segment in segments)

    def _methods(self) -> list[str]:
        return self._chance.sample(METHODS, k=self._chance.randrange(1, 3))


def make_scope(method: str, path: str) -> Scope:
    """Return a request as a server hands it on."""
    return {"type": "http", "method": method, "path": path, "root_path": "", "headers": [], "query_string": b""}


async def test_the_template_is_the_route_that_answered() -> None:
    """The template equals the declared path, FastAPI's route, and the one found for an early refusal."""
    reported = matched = 0
    for seed in range(APPLICATIONS):
        application = Application(seed)
        templates = PathTemplates(application.api.routes)
        for _ in range(REQUESTS):
            method, path = application.request()
            template = templates.of(await application.ask(method, path))
            where = f"{method} {path!r} of application {seed}"
            assert templates.of(make_scope(method, path)) == template, where
            if application.declared:
                assert application.declared == [template], where
                reported += 1
            if REPORTS_ITS_ROUTE:
                assert (application.meters.routes.seen.pop() or UNMATCHED) == template, where
            matched += template != UNMATCHED
    # The applications still match enough requests.
    assert reported > 3 * APPLICATIONS
    assert reported < matched < 0.95 * APPLICATIONS * REQUESTS
