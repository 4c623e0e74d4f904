"""The HTTP application of the exporter: the views of schema metrics at /metrics, and the health of the process."""

import math

from starlette.requests import Request
from starlette.types import ASGIApp

from exporter.collector import ViewCollector
from services.shared.server import Process, status_app

# Time for network and rendering, because Prometheus must have the answer within its own time-out.
MARGIN_SECONDS = 0.5


def create_app(process: Process, collector: ViewCollector, *, longest_seconds: float) -> ASGIApp:
    """Return the application. A pass takes at most longest_seconds, or less if the scraper requests it."""

    async def scrape(request: Request) -> tuple[bytes, str]:
        patience = scrape_seconds(request.headers.get("x-prometheus-scrape-timeout-seconds"), longest=longest_seconds)
        exposition = await collector.scrape(patience)
        return await exposition.render(request.headers.get("accept", ""))

    process.scrape = scrape
    return status_app(process)


def scrape_seconds(header: str | None, *, longest: float) -> float:
    """Return the time for a pass: the scraper's time-out minus a margin, at most longest."""
    try:
        patience = float(header) if header is not None else math.inf
    except ValueError:
        patience = math.inf
    if math.isnan(patience) or patience <= 0:
        patience = math.inf
    return min(longest, max(patience - MARGIN_SECONDS, patience / 2))
