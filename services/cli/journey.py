"""The way of one trace id through the services, with the milliseconds of each hop."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from rich.table import Table
from rich.text import Text

from services.shared import db
from services.shared.visible_text import terminal_text

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Hop:
    """One step of the journey; `milliseconds` is the time since the step before it."""

    title: str
    service: str
    what: str
    milliseconds: float


async def read_timeline(pool: db.Pool, *, tenant_id: str, trace_id: str) -> list[dict[str, Any]]:
    """All rows of the trace that the tenant has, oldest first; each names its parent among them, or none."""
    async with db.read_as(pool, tenant_id=tenant_id) as connection:
        return [dict(row) for row in await connection.fetch("select * from api.trace_timeline($1)", trace_id)]


def hops(rows: Sequence[Row]) -> list[Hop] | None:
    """The five steps from reading to answer, None while the trace has not gone all the way."""
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
    """The journey for people."""
    shown = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    shown.add_column(justify="right")
    for number, hop in enumerate(steps):
        shown.add_row(
            f"+{hop.milliseconds:.1f} ms" if number else "",
            hop.title,
            *(Text(terminal_text(said)) for said in (hop.service, hop.what)),
        )
    shown.add_row(f"{sum(hop.milliseconds for hop in steps):.1f} ms", "from reading to answer", "", "")
    return shown
