"""`pulse metrics list` and `pulse metrics lint`: what the exporter serves, and what is wrong with a view."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg
import orjson
import pytest
from typer.testing import CliRunner, Result

from services.cli.metrics import app
from tests.support.scrape import as_owner, exporting

RoleUrl = Callable[[str], str]
Metrics = Callable[..., Awaitable[Result]]

# SQL and the findings it must cause, by rule; comments are given to all but the first.
VIEWS = {
    "speechless": ("select 1 as value", ["comment"]),
    "bad-name": ("select 1 as value", ["unsafe"]),
    "text_value": ("select '1' as value", ["unsafe"]),
    "number_label": ("select 7 as device, 1 as value", ["unsafe"]),
    "exporter_up": ("select 1 as value", ["unsafe"]),
    "breaks": ("select 1 / 0 as value", ["failing"]),
    "repeats": ("select 'same' as label, i as value from generate_series(1, 2) i", ["failing"]),
    "hangs": ("select 1 as value, pg_sleep(60)::text as slept", ["slow"]),
    "drags": ("select 1 as value, pg_sleep(0.06)::text as slept", ["slow"]),
    "endless": ("select i::text, 1 as value from (select generate_series(1, 1000000) as i) s", ["wide"]),
    "long": ("select i::text, 1 as value from generate_series(1, 201) i", ["wide"]),
    "broad": ("select 'a' as a, 'b' as b, 'c' as c, 'd' as d, 'e' as e, 'f' as f, 1 as value", ["wide"]),
    "sinks_total": ("select 1e10 - extract(epoch from clock_timestamp()) as value", ["falling"]),
    "delay": ("select interval '1 minute' as value", ["unit"]),
    "born_at": ("select now() as value", ["unit"]),
    "delay_ms": ("select 1 as value", ["unit"]),
    "rooms_count": ("select 1 as value", ["name"]),
    "pulse_beats": ("select 1 as value", ["name"]),
    "hidden": ("select null::text as room, 1 as value", ["null_label"]),
    "targets": ("select 'x' as instance, 1 as value", ["label"]),
    "fine_seconds": ("select 'a' as room, interval '1 minute' as value", []),
    "fine_total": ("select 'a' as room, 1 as value", []),
}
WARNINGS = {"unit", "name", "null_label", "label"}


@pytest.fixture
def metrics(role_url: RoleUrl, monkeypatch: pytest.MonkeyPatch) -> Metrics:
    """Runs the command as the exporter's role, in a thread: it has an event loop of its own."""
    monkeypatch.setenv("PULSE_EXPORTER_DATABASE_URL", role_url("pulse_exporter"))
    # A busy machine must not make the shipped views slow.
    monkeypatch.setenv("PULSE_EXPORTER_VIEW_TIMEOUT_SECONDS", "0.7")

    async def run(*arguments: str) -> Result:
        return await asyncio.to_thread(CliRunner().invoke, app, arguments)

    return run


async def test_our_own_views_are_clean_and_listed(metrics: Metrics, role_url: RoleUrl) -> None:
    """Nothing to mend; the list says of each what a scrape shows."""
    done = await metrics("lint", "--slow-ms", "600")
    assert done.exit_code == 0, done.output
    listed = await metrics("list", "--json")
    rows: list[dict[str, Any]] = orjson.loads(listed.stdout)["metrics"]
    async with exporting(role_url("pulse_exporter")) as scraper:
        found = await scraper.scrape()
    assert done.stdout == f"{len(rows)} views: 0 errors, 0 warnings\n"
    assert {row["view"] for row in rows} == found.views().keys()
    for row in rows:
        family = found.families[row["metric"].removesuffix("_total")]
        assert (family.type, family.documentation) == (row["type"], row["help"])
        assert {frozenset(sample.labels) - {"le"} for sample in family.samples} <= {frozenset(row["labels"])}
        assert (row["rows"], row["refused"]) == (found.value("pulse_exporter_view_rows", view=row["view"]), None)
        assert row["milliseconds"] > 0


async def test_each_fault_is_named(conn: asyncpg.Connection, metrics: Metrics) -> None:
    """Every view with what is wrong with it and nothing else; errors make the exit status 1, warnings do not."""
    await as_owner(
        conn,
        *(f'create view metrics."{name}" as {sql}' for name, (sql, _) in VIEWS.items()),
        *(f"comment on view metrics.\"{name}\" is 'Of {name}.'" for name in list(VIEWS)[1:]),
    )
    done = await metrics("lint", "--json", "--slow-ms", "50")
    findings = [row for row in orjson.loads(done.stdout)["findings"] if row["view"] in VIEWS]
    assert Counter((row["view"], row["rule"]) for row in findings) == Counter(
        (name, rule) for name, (_, rules) in VIEWS.items() for rule in rules
    )
    assert {row["rule"] for row in findings if row["level"] == "warning"} == WARNINGS
    assert {row["rule"] for row in findings if row["level"] == "error"}.isdisjoint(WARNINGS)
    assert done.exit_code == 1

    listed = (await metrics("list")).stdout.splitlines()
    lines = {line.split()[0]: line for line in listed}
    assert "NOT SERVED: 22012" in lines["pulse_breaks"]
    assert lines["pulse_fine_total"].split()[1:4] == ["counter", "room", "1"]

    for name, (_, rules) in VIEWS.items():
        if not WARNINGS.issuperset(rules):
            await as_owner(conn, f'drop view metrics."{name}"')
    done = await metrics("lint", "--slow-ms", "600")
    assert "metrics.delay_ms: warning: ms is no base unit: seconds, bytes and ratios are (unit)" in done.stdout
    assert done.stdout.endswith(": 0 errors, 7 warnings\n")
    assert done.exit_code == 0
