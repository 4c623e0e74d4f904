"""HTTP: microseconds that Pulse adds to a request and that a token check takes, beside other libraries.

request  trace id in and out, histogram and log line together, called as a server would call the application and without
         network; the reference is one BaseHTTPMiddleware that does the same three things in the obvious way
token    a user token verified for the first time, and one that was verified before; the reference is python-jose given
         the JWK each time

Every answer must be a 200, and each request to the reference and to Pulse must stand in its histogram and in its log;
otherwise the benchmark exits with status 1.

    pulse bench http [--only NAME …] [--requests N] [--rounds N] [--no-libraries]
"""

import argparse
import logging
import os
import tempfile
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from fastapi import FastAPI
from jose import jwk, jwt
from prometheus_client import CollectorRegistry, Histogram
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message

from benchmarks._bench import conclude, percentile, require_effect
from benchmarks._http_libraries import LIBRARIES, install
from services.shared.logging import EACH, JsonFormatter, LineHandler
from services.shared.metrics import BUCKETS, ProcessMetrics
from services.ui_iot.auth.key_set import KeySet
from services.ui_iot.auth.principal import Principal
from services.ui_iot.auth.tokens import TokenVerifier
from services.ui_iot.auth.trust import Trust
from services.ui_iot.middleware.path_template import PathTemplates
from services.ui_iot.middleware.trace import TraceMiddleware

ISSUER, AUDIENCE = "https://issuer.example", "pulse"
OBSERVED = "pulse_http_request_duration_seconds"
_log = logging.getLogger("bench.http")


def bare() -> FastAPI:
    """Return an application with a route that answers at once."""
    api = FastAPI(openapi_url=None)

    @api.get("/items/{item_id}")
    async def read_item(item_id: str) -> Response:
        return Response(item_id)

    return api


def with_pulse(api: FastAPI, metrics: ProcessMetrics) -> ASGIApp:
    """Wrap the application in Pulse's outermost layer."""
    return TraceMiddleware(api, metrics=metrics, templates=PathTemplates(api.routes), unmeasured=frozenset(("/livez",)))


def with_base_middleware(api: FastAPI, registry: CollectorRegistry) -> ASGIApp:
    """Wrap the application in the reference: the same three things in one BaseHTTPMiddleware."""
    names = ["method", "path_template", "status_code"]
    duration = Histogram(OBSERVED, "Seconds.", names, buckets=BUCKETS, registry=registry)

    async def observe(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        trace_id = request.headers.get("x-trace-id") or uuid.uuid4().hex
        started = time.perf_counter()
        response = await call_next(request)
        seconds = time.perf_counter() - started
        template = getattr(request.scope.get("route"), "path", "none")
        duration.labels(request.method, template, response.status_code).observe(seconds)
        _log.info(
            "%s %s %s",
            request.method,
            template,
            response.status_code,
            extra={"duration_ms": seconds * 1000, EACH: True},
        )
        response.headers["x-trace-id"] = trace_id
        return response

    return BaseHTTPMiddleware(api, dispatch=observe)


async def call(app: ASGIApp, requests: int) -> float:
    """Return the microseconds for each request."""

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    answered = 0

    async def send(message: Message) -> None:
        nonlocal answered
        answered += message["type"] == "http.response.start" and message["status"] == 200

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": "/items/7",
        "raw_path": b"/items/7",
        "query_string": b"",
        "root_path": "",
        "headers": [(b"host", b"api.test"), (b"user-agent", b"bench"), (b"accept", b"*/*")],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
    }
    started = time.perf_counter()
    for _ in range(requests):
        await app({**scope}, receive, send)
    taken = time.perf_counter() - started
    require_effect("requests answered with 200", found=answered, expected=requests)
    return taken / requests * 1e6


def observations(registry: CollectorRegistry) -> int:
    """Return how many successful requests stand in the histogram."""
    labels = {"method": "GET", "path_template": "/items/{item_id}", "status_code": "200"}
    return int(registry.get_sample_value(f"{OBSERVED}_count", labels) or 0)


async def prove(name: str, app: ASGIApp, registry: CollectorRegistry, requests: int = 100) -> None:
    """Check that each request makes one observation and one log line."""
    before = observations(registry)
    with tempfile.TemporaryFile("w+") as lines:
        with logging_to(lines):
            await call(app, requests)
        lines.seek(0)
        require_effect(f"log lines of {name}", found=sum("/items/" in line for line in lines), expected=requests)
    require_effect(f"observations of {name}", found=observations(registry) - before, expected=requests)


async def bench_request(options: argparse.Namespace) -> None:
    """Measure by turns what each adds to the bare application."""
    metrics, registry = ProcessMetrics("bench"), CollectorRegistry()
    apps: dict[str, ASGIApp] = {
        "reference": with_base_middleware(bare(), registry),
        "pulse": with_pulse(bare(), metrics),
    }
    if options.libraries:
        install()
        apps |= {name: add(bare()) for name, add in LIBRARIES.items()}
    naked: ASGIApp = bare()
    added: dict[str, list[float]] = {name: [] for name in apps}
    floor = []
    for warm in (naked, *apps.values()):
        await call(warm, options.requests // 10)
    for name, collected in (("reference", registry), ("pulse", metrics.registry)):
        await prove(name, apps[name], collected)
    for _ in range(options.rounds):
        floor.append(await call(naked, options.requests))
        for name, app in apps.items():
            added[name].append(await call(app, options.requests) - floor[-1])
    print(f"{'bare':20} {percentile(floor, 0.5):7.1f} µs a request")
    medians = {name: percentile(values, 0.5) for name, values in added.items()}
    for name, median in medians.items():
        print(f"{name:20} {median:+7.1f} µs a request")
    for name, median in medians.items():
        if name != "pulse":
            print(f"{'ratio':20} {medians['pulse'] / median:7.2f} x what {name} adds")


def bench_token(options: argparse.Namespace) -> None:
    """Measure a token that is new to the process and one that it has verified before."""
    private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    public = {**jwk.construct(pem, "RS256").public_key().to_dict(), "kid": "bench", "use": "sig"}
    now = int(time.time())
    claims = {"iss": ISSUER, "aud": AUDIENCE, "iat": now, "exp": now + 3600, "tenant_id": "acme", "role": "viewer"}
    tokens = [
        jwt.encode({**claims, "sub": f"u{n}"}, pem, "RS256", headers={"kid": "bench"})
        for n in range(min(200, options.requests))
    ]
    keys = KeySet.from_document({"keys": [public]})

    def reference() -> None:
        for token in tokens:
            jwt.decode(token, public, algorithms=["RS256"], audience=AUDIENCE, issuer=ISSUER)

    def verify(verifier: TokenVerifier) -> None:
        accepted = sum(isinstance(verifier.verify(token, keys), Principal) for token in tokens)
        require_effect("tokens accepted", found=accepted, expected=len(tokens))

    rates: dict[str, list[float]] = {"reference": [], "pulse": [], "again": []}
    for _ in range(options.rounds):
        verifier = TokenVerifier(Trust(ISSUER, audiences=frozenset({AUDIENCE})))
        for name, work in (
            ("reference", reference),
            ("pulse", lambda verifier=verifier: verify(verifier)),
            ("again", lambda verifier=verifier: verify(verifier)),
        ):
            started = time.perf_counter()
            work()
            rates[name].append((time.perf_counter() - started) / len(tokens) * 1e6)
    medians = {name: percentile(values, 0.5) for name, values in rates.items()}
    print(f"{'reference':20} {medians['reference']:7.1f} µs a token (python-jose with the JWK)")
    print(f"{'pulse':20} {medians['pulse']:7.1f} µs a token that is new")
    print(f"{'pulse':20} {medians['again']:7.1f} µs a token verified before")
    for name in ("pulse", "again"):
        print(f"{'ratio':20} {medians[name] / medians['reference']:7.2f} x the reference ({name})")


@contextmanager
def logging_to(stream: TextIO) -> Iterator[None]:
    """Write log lines to a stream meanwhile."""
    before = logging.root.handlers[:]
    logging.basicConfig(level="INFO", handlers=[LineHandler(stream, JsonFormatter("bench"))], force=True)
    try:
        yield
    finally:
        logging.basicConfig(level="INFO", handlers=before, force=True)


async def run(options: argparse.Namespace) -> None:
    """Run the requested parts."""
    if "request" in options.only:
        await bench_request(options)
    if "token" in options.only:
        bench_token(options)


PARTS = ("request", "token")


def main() -> None:
    """Read the arguments and run."""
    parser = argparse.ArgumentParser(prog="pulse bench http", description=__doc__.split("\n\n")[0])
    parser.add_argument("--only", nargs="+", choices=PARTS, metavar="NAME", default=PARTS, help="request, token")
    parser.add_argument("--requests", type=int, default=5000, help="requests a round (default 5000)")
    parser.add_argument("--rounds", type=int, default=9, help="rounds, each with all by turns (default 9)")
    parser.add_argument(
        "--no-libraries", dest="libraries", action="store_false", help="leave out what must be downloaded"
    )
    options = parser.parse_args()
    with open(os.devnull, "w") as nowhere, logging_to(nowhere):  # noqa: PTH123  # it is no path
        conclude(run(options))


if __name__ == "__main__":
    main()
