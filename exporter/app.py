"""The exporter's HTTP side: every view of schema metrics at /metrics, and the health of the process."""

import math

from starlette.requests import Request
from starlette.types import ASGIApp

from exporter.collector import ViewCollector
from services.shared.server import Process, status_app

# Prometheus must have the answer before its own patience ends; what the network and rendering may take.
MARGIN_SECONDS = 0.5


def create_app(process: Process, collector: ViewCollector, *, longest_seconds: float) -> ASGIApp:
    """The application; a pass takes at most longest_seconds, or less when the scraper says so."""

    async def scrape(request: Request) -> tuple[bytes, str]:
        patience = scrape_seconds(request.headers.get("x-prometheus-scrape-timeout-seconds"), longest=longest_seconds)
        exposition = await collector.scrape(patience)
        return await exposition.render(request.headers.get("accept", ""))

    process.scrape = scrape
    return status_app(process)


def scrape_seconds(header: str | None, *, longest: float) -> float:
    """How long a pass may take: what the scraper says less a margin, never more than longest."""
    try:
        patience = float(header) if header is not None else math.inf
    except ValueError:
        patience = math.inf
    if math.isnan(patience) or patience <= 0:
        patience = math.inf
    return min(longest, max(patience - MARGIN_SECONDS, patience / 2))
