"""Waits for the first webhook of the demo and tells how it came about."""

import asyncio
from typing import Any

import httpx

from services.cli.journey import Hop, hops, read_timeline
from services.local.demo.factory import TENANT_ID
from services.shared import db

INTERVAL_SECONDS = 0.1


async def first_journey(
    pool: db.Pool, client: httpx.AsyncClient, *, sink_url: str, seconds: float
) -> tuple[str, list[Hop]] | None:
    """Trace id and steps of the first opened alert that reached the sink, None when none did in time."""
    try:
        async with asyncio.timeout(seconds):
            while True:
                for trace_id in await _received(client, sink_url):
                    steps = hops(await read_timeline(pool, tenant_id=TENANT_ID, trace_id=trace_id))
                    if steps is not None:
                        return trace_id, steps
                await asyncio.sleep(INTERVAL_SECONDS)
    except TimeoutError:
        return None


async def _received(client: httpx.AsyncClient, sink_url: str) -> list[str]:
    """Trace ids of the opened alerts that the sink was told of, oldest first."""
    try:
        answer = await client.get(f"{sink_url}/received")
        received: list[dict[str, Any]] = answer.raise_for_status().json()["received"]
    except httpx.HTTPError:
        return []
    opened = (request for request in reversed(received) if request["verified"] and _is_opening(request["body"]))
    return [trace_id for request in opened if (trace_id := request["headers"].get("x-trace-id"))]


def _is_opening(body: object) -> bool:
    return isinstance(body, dict) and body.get("type") == "alert.opened"
