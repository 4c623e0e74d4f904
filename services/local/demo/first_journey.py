"""First alert of the demo: its steps from reading to webhook, with the milliseconds of each."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import httpx
from rich.table import Table
from rich.text import Text

from services.cli.trace import read_timeline
from services.local.demo.factory import TENANT_ID
from services.shared import db
from services.shared.visible_text import terminal_text

INTERVAL_SECONDS = 0.1
Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Hop:
    """Step of the journey. `milliseconds`: the time since the step before it."""

    title: str
    service: str
    what: str
    milliseconds: float


async def first_journey(
    pool: db.Pool, client: httpx.AsyncClient, *, sink_url: str, seconds: float
) -> tuple[str, list[Hop]] | None:
    """Return trace id and steps of the first alert that reached the sink, None if none did in time."""
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
    """Return the trace ids of opened alerts that the sink has received, oldest first."""
    try:
        answer = await client.get(f"{sink_url}/received")
        received: list[dict[str, Any]] = answer.raise_for_status().json()["received"]
    except httpx.HTTPError:
        return []
    opened = (request for request in reversed(received) if request["verified"] and _is_opening(request["body"]))
    return [trace_id for request in opened if (trace_id := request["headers"].get("x-trace-id"))]


def _is_opening(body: object) -> bool:
    return isinstance(body, dict) and body.get("type") == "alert.opened"


def hops(rows: Sequence[Row]) -> list[Hop] | None:
    """Return the five steps from reading to answer, None while one step is missing."""
    first: dict[str, Row] = {}
    for row in rows:
        first.setdefault(str(row["kind"]), row)
    attempt = next((row for row in rows if row["kind"] == "attempt" and row["duration_ms"] is not None), None)
    if attempt is None or not {"reading", "event", "job"} <= first.keys():
        return None
    answered_at = attempt["at"] + timedelta(milliseconds=float(attempt["duration_ms"]))
    steps: list[tuple[str, Row, datetime]] = [
        ("reading stored", first["reading"], first["reading"]["at"]),
        ("rule evaluated", first["event"], first["event"]["at"]),
        ("route decided", first["job"], first["job"]["at"]),
        ("webhook posted", attempt, attempt["at"]),
        ("answer received", attempt, answered_at),
    ]
    before = steps[0][2]
    made: list[Hop] = []
    for title, row, at in steps:
        made.append(Hop(title, str(row["service"]), str(row["what"]), (at - before).total_seconds() * 1000))
        before = at
    return made


def journey_table(steps: Sequence[Hop]) -> Table:
    """Return the journey as a table."""
    shown = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    shown.add_column(justify="right")
    for number, hop in enumerate(steps):
        shown.add_row(
            f"+{hop.milliseconds:.1f} ms" if number else "",
            hop.title,
            *(Text(terminal_text(cell)) for cell in (hop.service, hop.what)),
        )
    shown.add_row(f"{sum(hop.milliseconds for hop in steps):.1f} ms", "from reading to answer", "", "")
    return shown
