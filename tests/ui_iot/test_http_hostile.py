"""No spelling of a request creates a series or leaves a byte in a label."""

import asyncio
import os
import random
import re

from prometheus_client import generate_latest
from starlette.types import Message, Scope

from services.ui_iot.middleware.http_meter import KNOWN_METHODS, OTHER
from services.ui_iot.middleware.path_template import UNMATCHED
from tests.support.http_app import Gates, Measured, make_app, served
from tests.support.raw_http import RawConnection

# PULSE_TEST_HOSTILE_REQUESTS sets the number of requests.
REQUESTS = int(os.environ.get("PULSE_TEST_HOSTILE_REQUESTS", "3000"))
RAW_REQUESTS = 300
# A searchable mark in every path, method, header and query. Some paths still match a route.
MARK = "evil"

TEMPLATES = {
    UNMATCHED,
    "/v1/items/{item_id}",
    "/v1/items/{item_id}/parts/{part}",
    "/api/v2/shop/items/{item_id}",
    "/api/v2/shop/items/{item_id}/parts/{part}",
    "/teapot",
    "/files/{path}",
    "/upload",
    "/plain",
    "/docs",
    "/openapi.json",
}
STATUSES = {"200", "400", "403", "404", "405", "418", "422", "429", "499", "500"}
_SEEDS = (
    *("/v1/items/{}", "/v1/items/{}/parts/{}", "/api/v2/shop/items/{}", "/files/{}/{}", "/{}", "/{}/{}", "//{}"),
    *("/plain/{}", "/v1/items/{}/", "{}", "*", "/upload", "/teapot", "/plain", "/docs", "/openapi.json"),
)
_METHODS = (*sorted(KNOWN_METHODS), "get", "GET ", "PROPFIND", "")
_WEIRD = (
    "\0",
    "\n",
    "\r\n",
    '"',
    "\\",
    "{item_id}",
    "}",
    "%2f",
    "..",
    "/",
    " ",
    "é",
    "\ud800",
    "💥",
    "=",
    ",",
    "9" * 5000,
)


class Attacker:
    """Generator of random requests, from a seed."""

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(seed)

    def word(self) -> str:
        """Return the mark with something odd about it."""
        return MARK + str(self._chance.randrange(10**9)) + "".join(self._chance.choices(_WEIRD, k=2))

    def path(self) -> str:
        """Return one that leads to a route, or nearly."""
        seed = self._chance.choice(_SEEDS)
        return seed.format(*(self.word() for _ in range(seed.count("{}"))))

    def method(self) -> str:
        """Return a known one, or any."""
        return self._chance.choice((*_METHODS, self.word(), self.word() * 50))

    def scope(self) -> Scope:
        """Return a request as a server would pass it on if it checked nothing."""
        names = [b"host", b"user-agent", b"x-trace-id", b"traceparent", b"tracestate", b"x-forwarded-for", b"forwarded"]
        names += [b"x-http-method-override", b"x-original-url", b"x-forwarded-prefix", b"baggage", self._bytes()]
        headers = [(name, self._bytes()) for name in self._chance.choices(names, k=5)]
        scope: Scope = {"path": self.path(), "query_string": self._bytes(), "headers": headers, "root_path": ""}
        return {**scope, "type": "http", "method": self.method()}

    def raw(self) -> bytes:
        """Bytes that are a request, nearly one, or none."""
        lines = f"{self.method()} {self.path()} HTTP/1.1\r\nHost: {self.word()}\r\nConnection: close\r\n"
        whole = (lines + f"X-{self.word()}: {self.word()}\r\n\r\n").encode("utf-8", "replace")
        spoiled = bytearray(whole)
        for _ in range(self._chance.choice((0, 0, 1, 5))):
            spoiled[self._chance.randrange(len(spoiled))] = self._chance.randrange(256)
        return bytes(spoiled)

    def _bytes(self) -> bytes:
        return self.word().encode("utf-8", "surrogatepass")


async def attack(measured: Measured, attacker: Attacker) -> None:
    """Send one request, whatever its answer."""
    scope = attacker.scope()
    incoming: list[Message] = [{"type": "http.request", "body": b"{", "more_body": False}]

    async def receive() -> Message:
        return incoming.pop(0) if incoming else {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        """Discard the message."""

    await measured.app(scope, receive, send)


def assert_closed(measured: Measured) -> None:
    """Check that no client can make a label value."""
    for method, template, status in measured.requests():
        assert method in KNOWN_METHODS | {OTHER}
        assert template in TEMPLATES
        assert status in STATUSES
    exposed = generate_latest(measured.metrics.registry).decode()
    assert MARK not in exposed
    assert set(re.findall(r"([a-z_]+)=\"", exposed)) <= {
        *("method", "path_template", "status_code", "le", "reason"),
        *("implementation", "major", "minor", "patchlevel", "version"),  # of python_info
    }
    assert len(measured.requests()) <= len(TEMPLATES) * (len(KNOWN_METHODS) + 1) * len(STATUSES)
    # One entry per series, and nothing else is kept per request.
    assert len(measured.app._meter._series) == len(measured.requests())  # noqa: SLF001  # what must not grow


async def test_no_byte_of_a_client_becomes_a_label() -> None:
    """The requests go directly to the application, including those that a server would reject."""
    api = make_app(Gates())
    measured = Measured(api, api.routes)
    attacker = Attacker(11)
    for _ in range(REQUESTS):
        await attack(measured, attacker)
    assert_closed(measured)
    assert measured.value("pulse_http_measuring_errors_total") == 0
    assert sum(measured.requests().values()) == REQUESTS
    assert len(measured.requests()) > 30  # the attack was not turned away at the door


async def test_no_bytes_on_the_wire_become_a_label() -> None:
    """Over a real server. Half of the input is not HTTP."""
    api = make_app(Gates())
    measured = Measured(api, api.routes)
    attacker = Attacker(12)

    async def send(port: int) -> None:
        async with RawConnection(port) as connection:
            connection.write(attacker.raw())
            connection.write_eof()
            await connection.read_all()

    async with served(measured.app) as port:
        for _ in range(RAW_REQUESTS // 20):
            await asyncio.gather(*(send(port) for _ in range(20)))
    assert_closed(measured)
    assert measured.value("pulse_http_measuring_errors_total") == 0
    assert len(measured.requests()) > 3
