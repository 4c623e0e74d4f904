"""Readings that open and close alerts, each with its own trace, and the receiver of their webhooks."""

import asyncio
import itertools
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

import httpx
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from services.shared import tracing
from tests.chaos.journal import draw_trace_id

SENDERS = 16
_ANSWER_SECONDS = 5.0
_PAUSE_UNREACHABLE_SECONDS = 0.1
_FAILURES = 0.1
"""Share of the webhooks that the receiver refuses."""


@dataclass(slots=True)
class Sink:
    """Receiver that answers 204, or sometimes 503.

    taken: trace ids of accepted webhooks, by webhook id; spans: span ids of all webhooks, by trace id.
    """

    randomness: random.Random
    taken: dict[str, str] = field(default_factory=dict)
    spans: defaultdict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    untraced: list[str] = field(default_factory=list)
    """Ids of webhooks whose two headers name different traces."""
    answers: Counter[int] = field(default_factory=Counter)

    def app(self) -> Starlette:
        """Return the application to serve."""
        return Starlette(routes=[Route("/hook", self._receive, methods=["POST"])])

    async def _receive(self, request: Request) -> Response:
        try:
            await request.body()
        except ClientDisconnect:  # the sender was killed or gave up
            return Response(status_code=400)
        webhook_id = request.headers["webhook-id"]
        trace_id = request.headers.get("x-trace-id", "")
        _version, parent_trace_id, span_id, _flags = request.headers.get("traceparent", "---").split("-")
        if parent_trace_id != trace_id:
            self.untraced.append(webhook_id)
        self.spans[trace_id].add(span_id)
        status = 503 if self.randomness.random() < _FAILURES else 204
        if status == 204:
            self.taken[webhook_id] = trace_id
        self.answers[status] += 1
        return Response(status_code=status)


@dataclass(slots=True)
class TraceTraffic:
    """Readings, one per trace, each repeated unchanged until it is acknowledged.

    on_acknowledged: called with the number of acknowledged readings.
    """

    url: str
    token: str
    count: int
    devices: int
    seed: int
    on_acknowledged: Callable[[int], None]
    acknowledged: list[str] = field(default_factory=list)
    repeats: int = 0

    async def run(self) -> None:
        """Send all readings. Those of a device are sent in sequence, so that they open and close alerts."""
        limits = httpx.Limits(max_connections=SENDERS)
        headers = {"Authorization": f"Bearer {self.token}"}
        async with (
            httpx.AsyncClient(
                base_url=self.url, headers=headers, trust_env=False, timeout=_ANSWER_SECONDS, limits=limits
            ) as http,
            asyncio.TaskGroup() as tasks,
        ):
            for sender in range(SENDERS):
                tasks.create_task(self._send_all(http, sender))

    async def _send_all(self, http: httpx.AsyncClient, sender: int) -> None:
        randomness = random.Random(f"{self.seed}/{sender}")
        for number, device in zip(range(sender, self.count, SENDERS), self._devices(sender), strict=False):
            # Ids of our own layout, which contain their time, and foreign ones.
            trace_id = tracing.new_trace_id() if number % 4 else draw_trace_id(randomness)
            is_hot = (number // (SENDERS * len(self._mine(sender)))) % 2 == 0
            reading = {
                "device_id": f"device-{device}",
                "metric": "heat",
                "value": 95 if is_hot else 20,
                "timestamp": datetime.now(UTC).isoformat(),
            }
            while not await self._is_acknowledged(http, trace_id, reading):
                self.repeats += 1
            self.acknowledged.append(trace_id)
            self.on_acknowledged(len(self.acknowledged))

    def _mine(self, sender: int) -> range:
        return range(sender, self.devices, SENDERS)

    def _devices(self, sender: int) -> Iterator[int]:
        return itertools.cycle(self._mine(sender))

    async def _is_acknowledged(self, http: httpx.AsyncClient, trace_id: str, reading: Mapping[str, object]) -> bool:
        try:
            answer = await http.post("/ingest/v1/readings", json=reading, headers={"X-Trace-ID": trace_id})
        except httpx.TransportError:
            await asyncio.sleep(_PAUSE_UNREACHABLE_SECONDS)
            return False
        if answer.status_code != 202:
            await asyncio.sleep(_PAUSE_UNREACHABLE_SECONDS)
        return answer.status_code == 202
