"""A trace in the terminal: the tree, offsets, durations, bars that no pause squashes, and nothing that steers it."""

import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from services.cli.waterfall import Axis, lines, waterfall_table

START = datetime(2026, 1, 5, 12, tzinfo=UTC)


def row(
    span_id: str, parent: str | None, kind: str, seconds: float, what: str, ms: float | None = None
) -> dict[str, Any]:
    """Return a span as the database does."""
    at = START + timedelta(seconds=seconds)
    node = {"span_id": span_id, "parent_span_id": parent, "kind": kind, "at": at}
    return {**node, "duration_ms": ms, "service": "s", "what": what}


STORY = [
    row("a", None, "request", 0, "POST /ingest/v1/readings", 2),
    row("b", "a", "reading", 0.001, "temperature is 95"),
    row("c", "b", "evaluation", 0.010, "temperature evaluated: 1 opened", 4),
    row("d", "c", "alert", 0.012, "too hot"),
    row("e", "d", "event", 0.013, "alert opened"),
    row("f", "e", "job", 0.020, "alert opened goes to webhook sink", 7_512_000),
    row("g", "f", "attempt", 0.030, "attempt 1: retry (HTTP 503)", 10),
    row("h", "g", "audit", 0.041, "will be tried again"),
    row("i", "f", "attempt", 7200, "attempt 2: retry", 2500),
    row("j", "f", "attempt", 7510, "attempt 3: delivered", 2000),
    row("k", None, "audit", 7513, "config \x1b[2Jchanged [red]x[/red]"),
]


def shown(rows: list[dict[str, Any]], width: int | None) -> list[str]:
    """Return what is printed, without the spaces at the ends."""
    console = Console(width=width or 160)
    with console.capture() as capture:
        console.print(waterfall_table(rows, width=width))
    return [line.rstrip() for line in capture.get().splitlines()]


def test_what_a_pipe_gets() -> None:
    """The same at any time and in any terminal: no bars, no colours; a pause is said once, where it is."""
    assert shown(STORY, None) == [
        "since start       took  service  what",
        "    +0.0 ms     2.0 ms  s        POST /ingest/v1/readings",
        "    +1.0 ms             s        └─ temperature is 95",
        "   +10.0 ms     4.0 ms  s           └─ temperature evaluated: 1 opened",
        "   +12.0 ms             s              └─ too hot",
        "   +13.0 ms             s                 └─ alert opened",
        "   +20.0 ms  2 h 5 min  s                    └─ alert opened goes to webhook sink",
        "   +30.0 ms    10.0 ms  s                       ├─ attempt 1: retry (HTTP 503)",
        "   +41.0 ms             s                       │  └─ will be tried again",
        "          ⋯                                     │  ⋯ 2 h 0 min later",
        " +2 h 0 min      2.5 s  s                       ├─ attempt 2: retry",
        "          ⋯                                     │  ⋯ 5 min 10 s later",
        " +2 h 5 min      2.0 s  s                       └─ attempt 3: delivered",
        " +2 h 5 min             s        config \N{REPLACEMENT CHARACTER}[2Jchanged [red]x[/red]",
    ]


def test_a_terminal_gets_bars() -> None:
    """The milliseconds at the beginning stay visible beside retries two hours later; a narrow one gets no bars."""
    wide, narrow = shown(STORY, 160), shown(STORY, 80)
    bars = {line.split("─ ")[-1].split("  ")[0]: line.count("━") for line in wide if "━" in line}
    assert list(bars) == [
        "", "temperature evaluated: 1 opened", "attempt 1: retry (HTTP 503)", "attempt 2: retry",
        "attempt 3: delivered",
    ]  # fmt: skip
    assert list(bars.values()) == [1, 3, 7, 15, 10]
    starts = [max(line.find("━"), line.find("╸")) for line in wide[1:] if "⋯" not in line]
    assert starts == sorted(starts)
    assert not any("━" in line for line in narrow)
    assert max(map(len, wide)) <= 160
    assert max(map(len, narrow)) <= 80


@pytest.mark.slow
@given(
    st.lists(st.tuples(st.floats(0, 1e7), st.floats(0, 1e5) | st.none(), st.integers(0, 30)), min_size=1, max_size=30),
    st.integers(60, 250),
)
def test_every_row_is_shown_once_and_within_the_width(made: list[tuple[float, float | None, int]], width: int) -> None:
    """The times are arbitrary. A child may precede its parent."""
    rows = [
        row(str(number), None if parent >= number else str(parent), "audit", at, f"<{number}>", ms)
        for number, (at, ms, parent) in enumerate(made)
    ]
    rows.sort(key=lambda one: one["at"])
    for limit in (width, None):
        printed = shown(rows, limit)
        for number in range(len(rows)):
            assert limit == width or sum(f"<{number}>" in line for line in printed) == 1
        assert max(map(len, printed)) <= (limit or 160)
    axis = Axis(rows, 50)
    for one in rows:
        begun, ended = axis.interval(one)
        assert 0 <= axis.column(begun) <= axis.column(ended) <= 50


def test_a_trace_of_months_costs_no_more_for_each_row() -> None:
    """A client that never changes its trace id has a pause before each request: 10,000 took 6 s."""
    rows = [row(str(number), None, "request", 10.0 * number, "POST", 1) for number in range(5_000)]
    started = time.process_time()
    made = list(lines(rows, Axis(rows, 50)))
    assert time.process_time() - started < 0.5
    assert [line.pause_seconds for line in made] == [0.0] + [10.0] * 4_999
