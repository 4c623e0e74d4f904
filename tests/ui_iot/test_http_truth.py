"""The metrics equal the responses that a real server's clients saw, for every way a request can end."""

import asyncio
import logging
import os
import random
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import pytest

from tests.support.http_app import Gates, Measured, make_app, served
from tests.support.raw_http import RawConnection, status_of
from tests.support.wait import until

# PULSE_TEST_HTTP_REQUESTS sets the number of requests.
REQUESTS = int(os.environ.get("PULSE_TEST_HTTP_REQUESTS", "600"))
AT_ONCE = 20

Key = tuple[str, ...]


@dataclass
class Ledger:
    """The clients' observations, under the expected labels."""

    port: int
    gates: Gates
    counts: Counter[Key] = field(default_factory=Counter)
    waited: defaultdict[Key, float] = field(default_factory=lambda: defaultdict(float))
    """Seconds from the request to the last byte of its answer, as its client counts them."""
    held: defaultdict[Key, float] = field(default_factory=lambda: defaultdict(float))
    """Seconds of these in which an answer was surely not complete."""

    async def ask(self, method: str, path: str, template: str, status: int, *, counted: str | None = None) -> None:
        """Send a request that is answered whole."""
        key = (counted or method, template, str(status))
        started = time.perf_counter()
        async with RawConnection(self.port) as connection:
            connection.request(method, path)
            response = await connection.read_all()
        self.waited[key] += time.perf_counter() - started
        assert status_of(response) == status, (method, path, response)
        self.counts[key] += 1

    async def break_off(self, method: str, path: str, template: str, mark: bytes, *headers: str) -> None:
        """Send a request whose client leaves at the mark, or at once without one."""
        async with RawConnection(self.port) as connection:
            connection.request(method, path, *headers)
            if mark:
                await connection.read_until(mark)
        self.counts[method, template, "499"] += 1

    async def half(self) -> None:
        """Ask for a response that breaks: its client sees 200 and not the end."""
        key = ("GET", "/half/{path}", "500")
        async with RawConnection(self.port) as connection:
            connection.request("GET", "/half/x")
            response = await connection.read_all()
        assert status_of(response) == 200
        assert response.endswith(b"half\r\n")  # the chunk that says that there are no more is missing
        self.counts[key] += 1

    async def stream(self, name: str) -> None:
        """Send a body whose last byte is late."""
        key = ("GET", "/stream/{key}", "200")
        started = time.perf_counter()
        async with RawConnection(self.port) as connection:
            connection.request("GET", f"/stream/{name}")
            await connection.read_until(b"first")
            halfway = time.perf_counter()
            await self.ask("GET", "/v1/items/7", "/v1/items/{item_id}", 200)
            self.held[key] += time.perf_counter() - halfway
            self.gates.open(name)
            assert b"last" in await connection.read_all()
        self.waited[key] += time.perf_counter() - started
        self.counts[key] += 1

    async def background(self, name: str) -> None:
        """Ask for an answer after which the application is busy for a while, when no client waits any more."""
        await self.ask("GET", f"/background/{name}", "/background/{key}", 200)
        await self.ask("GET", "/v1/items/7", "/v1/items/{item_id}", 200)
        self.gates.open(name)


Step = Callable[[Ledger, str], Awaitable[None]]

ENDINGS: tuple[Step, ...] = (
    lambda ledger, _: ledger.ask("GET", "/v1/items/7", "/v1/items/{item_id}", 200),
    lambda ledger, _: ledger.ask("GET", "/api/v2/shop/items/7", "/api/v2/shop/items/{item_id}", 200),
    lambda ledger, _: ledger.ask("POST", "/v1/items/7/parts/2", "/v1/items/{item_id}/parts/{part}", 200),
    lambda ledger, _: ledger.ask("POST", "/v1/items/7/parts/x", "/v1/items/{item_id}/parts/{part}", 422),
    lambda ledger, _: ledger.ask("DELETE", "/v1/items/7", "/v1/items/{item_id}", 405),
    lambda ledger, _: ledger.ask("GET", "/files/a/b/c", "/files/{path}", 200),
    lambda ledger, _: ledger.ask("GET", "/teapot", "/teapot", 418),
    lambda ledger, _: ledger.ask("GET", "/wrong", "/wrong", 500),
    lambda ledger, _: ledger.ask("GET", "/cancelled", "/cancelled", 500),
    lambda ledger, _: ledger.ask("GET", "/nowhere", "__unmatched__", 404),
    lambda ledger, _: ledger.ask("HEAD", "/plain", "/plain", 200),
    lambda ledger, _: ledger.ask("OPTIONS", "/plain", "/plain", 200),
    lambda ledger, name: ledger.ask(f"BREW{name}", "/plain", "/plain", 405, counted="_OTHER"),
    lambda ledger, _: ledger.half(),
    lambda ledger, name: ledger.stream(name),
    lambda ledger, name: ledger.background(name),
    lambda ledger, _: ledger.break_off("GET", "/patient", "/patient", b""),
    lambda ledger, name: ledger.break_off("GET", f"/stream/never-{name}", "/stream/{key}", b"first"),
    lambda ledger, _: ledger.break_off("POST", "/upload", "/upload", b"", "Content-Length: 100"),
)


class _Lines(logging.Handler):
    """Counter of request log lines by message."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[Key] = Counter()

    def emit(self, record: logging.LogRecord) -> None:
        fields = vars(record)
        if "status_code" in fields:
            self.counts[fields["method"], fields["path_template"], str(fields["status_code"])] += 1


async def test_counts_statuses_and_durations_are_what_the_clients_saw(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A seeded mix of requests. Counts are exact, and measured times do not exceed the clients' waits."""
    gates = Gates()
    api = make_app(gates)
    measured = Measured(api, api.routes)
    lines = _Lines()
    logger = logging.getLogger("services.ui_iot.middleware.http_meter")
    monkeypatch.setattr(logger, "handlers", [lines])
    monkeypatch.setattr(logger, "propagate", False)
    caplog.set_level(logging.INFO, logger=logger.name)
    chance = random.Random(7)
    # Each kind occurs at least once, then at random.
    mix = [*ENDINGS, *chance.choices(ENDINGS, k=max(0, REQUESTS - len(ENDINGS)))]
    chance.shuffle(mix)
    async with served(measured.app) as port:
        ledger = Ledger(port, gates)
        free = asyncio.Semaphore(AT_ONCE)

        async def run(number: int, step: Step) -> None:
            async with free:
                await step(ledger, str(number))

        await asyncio.gather(*(run(number, step) for number, step in enumerate(mix)))
        await until(lambda: measured.value("pulse_http_requests_in_progress") == 0)
    assert measured.requests() == ledger.counts
    failed = sum(count for (_, _, status), count in ledger.counts.items() if status[0] == "5")
    assert failed > 0
    assert measured.value("pulse_http_failures_total") == failed
    assert lines.counts == ledger.counts
    assert measured.value("pulse_http_measuring_errors_total") == 0
    seconds = measured.requests("sum")
    for key, most in ledger.waited.items():
        assert ledger.held[key] <= seconds[key] <= most, key
    assert ledger.held["GET", "/stream/{key}", "200"] > 0
