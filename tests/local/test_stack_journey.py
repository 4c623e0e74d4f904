"""The first alert's journey: five steps with the milliseconds between them, or none if a step is missing."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from rich.console import Console

from services.local.demo.first_journey import hops, journey_table

START = datetime(2026, 1, 5, 12, tzinfo=UTC)
STEPS = (
    ("reading", "ui_iot", "temperature is 95", 0.0, None),
    ("alert", "evaluator_iot", "Furnace too hot", 4.0, None),
    ("event", "evaluator_iot", "alert opened", 4.0, None),
    ("job", "dispatcher", "alert opened goes to webhook", 7.5, 9.0),
    ("attempt", "delivery_worker", "attempt 1: retry (HTTP 503)", 9.0, 2.5),
    ("attempt", "delivery_worker", "attempt 2: delivered (HTTP 204)", 400.0, 3.0),
    ("audit", "dispatcher", "told", 7.6, None),
)


def row(kind: str, service: str, what: str, milliseconds: float, duration_ms: float | None) -> dict[str, Any]:
    """Return a span as the database does."""
    at = START + timedelta(milliseconds=milliseconds)
    return {"kind": kind, "service": service, "what": what, "at": at, "duration_ms": duration_ms}


def test_the_milliseconds_of_each_hop() -> None:
    """Each hop from the reading to the first answer is measured separately."""
    made = hops([row(*step) for step in STEPS])
    assert made is not None
    assert [(hop.title, hop.service) for hop in made] == [
        ("reading stored", "ui_iot"),
        ("rule evaluated", "evaluator_iot"),
        ("route decided", "dispatcher"),
        ("webhook posted", "delivery_worker"),
        ("answer received", "delivery_worker"),
    ]
    assert [hop.milliseconds for hop in made] == pytest.approx([0.0, 4.0, 3.5, 1.5, 2.5])


@pytest.mark.parametrize("missing", ["reading", "event", "job", "attempt"])
def test_a_journey_under_way_is_none_yet(missing: str) -> None:
    """The caller retries."""
    assert hops([row(*step) for step in STEPS if step[0] != missing]) is None


def test_the_journey_fits_eighty_columns() -> None:
    """Terminals may be as narrow as eighty columns."""
    made = hops([row(*step) for step in STEPS])
    assert made is not None
    console = Console(width=80)
    with console.capture() as capture:
        console.print(journey_table(made))
    shown = capture.get()
    assert "+3.5 ms" in shown
    assert "from reading to answer" in shown
    assert max(len(line) for line in shown.splitlines()) <= 80
