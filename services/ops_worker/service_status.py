"""The status that a service reports at /health."""

import asyncio
import math
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx
import orjson

_COUNTER_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")
# Ten times the counters of our services. A faulty service must not fill the history.
_MOST_COUNTERS = 100


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer of one service. error: None if it is healthy. counters: empty if it reported none."""

    service: str
    url: str
    latency_ms: float
    error: str | None
    counters: Mapping[str, float]


def read_report(status_code: int, body: bytes) -> tuple[str | None, dict[str, float]]:
    """Return the error (None: healthy) and the counters of an answer. Unhealthy services have counters as well."""
    try:
        report = orjson.loads(body)
    except orjson.JSONDecodeError:
        report = None
    counters = _read_counters(report.get("counters")) if isinstance(report, dict) else {}
    if status_code != httpx.codes.OK:
        return f"answered {status_code}", counters
    if not isinstance(report, dict) or not isinstance(report.get("status"), str):
        return "the answer is no health report", counters
    if report["status"] != "ok":
        return f"{report['status']}: {report.get('reason') or 'no reason given'}", counters
    return None, counters


def _read_counters(counters: Any) -> dict[str, float]:
    if not isinstance(counters, dict):
        return {}
    numbers = {
        name: float(value)
        for name, value in counters.items()
        if _COUNTER_NAME.fullmatch(name) and isinstance(value, int | float) and not isinstance(value, bool)
    }
    return dict([(name, value) for name, value in numbers.items() if math.isfinite(value)][:_MOST_COUNTERS])


async def ask(client: httpx.AsyncClient, service: str, url: str) -> Answer:
    """Request the status of one service. A failed request is the error of its answer."""
    started = time.perf_counter()
    counters: Mapping[str, float] = {}
    try:
        response = await client.get(url)
        error, counters = read_report(response.status_code, response.content)
    except httpx.HTTPError as failure:
        error = f"{type(failure).__name__}: {failure}"
    latency_ms = (time.perf_counter() - started) * 1000
    if error is not None:
        error = error.replace("\0", "\N{REPLACEMENT CHARACTER}")[:500]  # text of Postgres holds no NUL
    return Answer(service=service, url=url, latency_ms=latency_ms, error=error, counters=counters)


async def ask_all(client: httpx.AsyncClient, urls: Mapping[str, str], *, concurrency: int) -> list[Answer]:
    """Return the answers of all services. urls: address by service. concurrency: requests at a time."""
    free = asyncio.Semaphore(concurrency)

    async def ask_when_free(service: str, url: str) -> Answer:
        async with free:
            return await ask(client, service, url)

    async with asyncio.TaskGroup() as tasks:
        asked = [tasks.create_task(ask_when_free(service, url)) for service, url in urls.items()]
    return [task.result() for task in asked]
