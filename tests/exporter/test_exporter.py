"""Views of schema metrics become metrics; a bad view is left out without harm to the others."""

import asyncio
import logging
import math
import re
from collections.abc import Callable

import asyncpg
import pytest

from exporter.app import scrape_seconds
from tests.support import seed
from tests.support.migrator import ROOT
from tests.support.scrape import as_owner, exporting

RoleUrl = Callable[[str], str]


async def test_create_view_is_the_whole_api(conn: asyncpg.Connection, role_url: RoleUrl) -> None:
    """A view and its comment are served at the next scrape, changed at the one after, gone after the drop."""
    async with exporting(role_url("pulse_exporter")) as scraper:
        assert "pulse_boilers" not in (await scraper.scrape()).names()

        await as_owner(
            conn,
            "create view metrics.boilers as select 'north' as site, 3 as value union all select 'south', 4",
            "comment on view metrics.boilers is 'Boilers by site.'",
        )
        first = await scraper.scrape()
        assert (first.families["pulse_boilers"].type, first.families["pulse_boilers"].documentation) == (
            "gauge",
            "Boilers by site.",
        )
        assert first.series("pulse_boilers", "site") == {("north",): 3, ("south",): 4}
        assert first.value("pulse_exporter_view_rows", view="boilers") == 2
        assert first.series("pulse_boilers", "site") == (await scraper.scrape_text()).series("pulse_boilers", "site")

        # The same statement text over other types: a plan cached from the first pass must not be used for this one.
        await as_owner(
            conn,
            "drop view metrics.boilers",
            "create view metrics.boilers as select 'east'::name as site, interval '90 seconds' as value",
        )
        second = await scraper.scrape()
        assert second.series("pulse_boilers", "site") == {("east",): 90}
        assert second.families["pulse_boilers"].documentation == ""

        await as_owner(conn, "drop view metrics.boilers")
        assert "boilers" not in (await scraper.scrape()).views()


async def test_the_examples_of_the_documentation_work(conn: asyncpg.Connection, role_url: RoleUrl) -> None:
    page = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    shell = re.findall(r"<<'SQL'\n(.*?)\nSQL\n", page, re.DOTALL)
    plain = re.findall(r"```sql\n(.*?)```", page, re.DOTALL)
    assert (len(shell), len(plain)) == (1, 1)
    await seed.rule(conn, severity="critical")
    for example in (*shell, *plain):
        await conn.execute(f"set role pulse_owner; {example}; reset role")
    async with exporting(role_url("pulse_exporter")) as scraper:
        found = await scraper.scrape()
    assert found.value("pulse_rules_enabled", severity="critical") == 1
    assert found.value("pulse_hold_age_seconds_bucket", le="+Inf") == 0
    assert f"# HELP pulse_rules_enabled {found.families['pulse_rules_enabled'].documentation}" in page


async def test_types_become_labels_and_samples(conn: asyncpg.Connection, role_url: RoleUrl) -> None:
    """Numbers, booleans, intervals and times are samples; text, enum and uuid are labels; NULL is no sample."""
    samples = {
        "a_smallint": ("3::smallint", 3.0),
        "a_bigint": ("9007199254740993", 9007199254740992.0),
        "a_numeric": ("1.5::numeric", 1.5),
        "a_real": ("0.5::real", 0.5),
        "a_domain": ("7::pg_temp.degrees", 7.0),
        "infinite": ("'Infinity'::double precision", float("inf")),
        "negative": ("-2.5", -2.5),
        "yes": ("true", 1.0),
        "no": ("false", 0.0),
        "lasting": ("interval '1 day 1 second'", 86401.0),
        "moment": ("timestamptz '2026-01-01 00:00:00+00'", 1767225600.0),
        "for_ever": ("timestamptz 'infinity'", float("inf")),
    }
    await as_owner(
        conn,
        "create domain public.degrees as integer",
        "create type public.mood as enum ('good', 'bad')",
        *(
            f"create view metrics.{name} as select {sql.replace('pg_temp', 'public')} as value"
            for name, (sql, _) in samples.items()
        ),
        "create view metrics.not_a_number as select 'NaN'::numeric as value",
        "create view metrics.nothing as select 'x' as label, null::integer as value",
        """create view metrics.labelled as
             select 'bad'::public.mood as mood, '6F9619FF-8B86-D011-B42D-00CF4FC964FF'::uuid as id, 'n'::name as n,
                    'v'::varchar(3) as v, 'c'::"char" as c, null::text as missing, 1 as value""",
    )
    async with exporting(role_url("pulse_exporter")) as scraper:
        for found in (await scraper.scrape(), await scraper.scrape_text()):
            assert {name: found.value(f"pulse_{name}") for name in samples} == {
                name: expected for name, (_, expected) in samples.items()
            }
            (nan,) = found.series("pulse_not_a_number").values()
            assert math.isnan(nan)
            assert found.series("pulse_nothing", "label") == {}
            assert found.series("pulse_labelled", "mood", "id", "n", "v", "c", "missing") == {
                ("bad", "6f9619ff-8b86-d011-b42d-00cf4fc964ff", "n", "v", "c", ""): 1.0
            }
        assert found.views()["nothing"]


async def test_text_is_escaped(conn: asyncpg.Connection, role_url: RoleUrl) -> None:
    """Quotes, backslashes and line breaks survive in labels and help, and cannot forge a line."""
    nasty = 'a"b\\c\nd} 1\n# EOF\npulse_forged 1 ü\t\r\u2028'
    await as_owner(conn, "create view metrics.nasty as select '' as label, 1 as value")
    await conn.execute("create table public.words (word text); grant select on public.words to pulse_owner")
    await conn.execute("insert into public.words values ($1)", nasty)
    quoted = await conn.fetchval("select quote_literal($1::text)", nasty)
    await as_owner(
        conn,
        "create or replace view metrics.nasty as select word as label, 1 as value from public.words",
        f"comment on view metrics.nasty is {quoted}",
    )
    async with exporting(role_url("pulse_exporter")) as scraper:
        found = await scraper.scrape()
        assert found.series("pulse_nasty", "label") == {(nasty,): 1.0}
        assert found.families["pulse_nasty"].documentation == nasty
        assert "pulse_forged" not in found.names()
        plain = await scraper.scrape_text()
        assert plain.series("pulse_nasty", "label") == {(nasty,): 1.0}
        assert "pulse_forged" not in plain.names()


async def test_counters_and_gauge_histograms(conn: asyncpg.Connection, role_url: RoleUrl) -> None:
    """_total makes a counter; le makes a gauge histogram, with a sum when the view has one."""
    buckets = (
        "(values ('a', 0.5, 1), ('a', 1, 3), ('a', 'Infinity', 4), ('b', 0.5, 0), ('b', 1, 0), ('b', 'Infinity', 0))"
    )
    await as_owner(
        conn,
        "create view metrics.doors_total as select 'in' as way, 5 as value",
        f"create view metrics.wait_seconds as select lane, le::float8, n as value from {buckets} v (lane, le, n)",
        f"""create view metrics.work_seconds as
              select lane, case le when 'Infinity' then '+Inf' else le::text end as le, 12.5 as sum, n as value
              from {buckets} v (lane, le, n) order by random()""",
    )
    async with exporting(role_url("pulse_exporter")) as scraper:
        found = await scraper.scrape()
        assert found.families["pulse_doors"].type == "counter"
        assert found.series("pulse_doors_total", "way") == {("in",): 5}
        assert found.families["pulse_wait_seconds"].type == "gaugehistogram"
        expected = {
            ("a", "0.5"): 1, ("a", "1.0"): 3, ("a", "+Inf"): 4, ("b", "0.5"): 0, ("b", "1.0"): 0, ("b", "+Inf"): 0,
        }  # fmt: skip
        assert found.series("pulse_wait_seconds_bucket", "lane", "le") == expected
        assert found.series("pulse_wait_seconds_gsum", "lane") == {}
        assert found.series("pulse_work_seconds_bucket", "lane", "le") == expected
        assert found.series("pulse_work_seconds_gcount", "lane") == {("a",): 4, ("b",): 0}
        assert found.series("pulse_work_seconds_gsum", "lane") == {("a",): 12.5, ("b",): 12.5}
        plain = await scraper.scrape_text()
        assert plain.series("pulse_work_seconds_bucket", "lane", "le") == expected
        assert plain.series("pulse_doors_total", "way") == {("in",): 5}


async def test_promtool_finds_nothing_to_say(
    conn: asyncpg.Connection, role_url: RoleUrl, require: Callable[[str], str]
) -> None:
    """Prometheus's own parser and linter accept the whole scrape: our views, every kind of metric, odd characters."""
    await as_owner(
        conn,
        "create view metrics.doors_total as select E'in \\\\ \" \n ü' as way, 5 as value",
        "create view metrics.hot_ratio as select * from (values ('a', 'NaN'::float8), ('b', '-inf')) v (way, value)",
        "create view metrics.wait_seconds as select * from (values (0.5, 3, 7), ('Infinity', 3, 8)) v (le, sum, value)",
        "create view metrics.born_timestamp_seconds as select now() as value, true::text as yes",
        "create view metrics.late_seconds as select interval '1 hour' as value",
        *(
            f"comment on view metrics.{name} is E'Odd \\\\ \" \n help ü.'"
            for name in ("doors_total", "hot_ratio", "wait_seconds", "born_timestamp_seconds", "late_seconds")
        ),
    )
    async with exporting(role_url("pulse_exporter")) as scraper:
        assert set((await scraper.scrape()).views().values()) == {True}
        text = (await scraper.client.get("/metrics")).content
    promtool = await asyncio.create_subprocess_exec(
        *(require("promtool"), "check", "metrics"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await promtool.communicate(text)
    # Days and months of retention follow the calendar. Status 3: it parses, with remarks.
    remarks = [
        line for line in said.decode().splitlines() if not re.search(r'"seconds" instead of "(days|months)"', line)
    ]
    assert (promtool.returncode in {0, 3}, remarks) == (True, [])


ROWS = "from generate_series(1, 3) i"
BAD = {
    "divides": (f"select i::text as i, 1 / (3 - i) as value {ROWS}", "22012"),
    "sleeps": ("select 1 as value, pg_sleep(60)::text as slept", "57014"),
    "repeats": (f"select 'same' as label, i as value {ROWS}", "two rows have the same labels"),
    "repeats_nothing": ("select null::text as l, 1 as value union all select '', 2", "two rows have the same labels"),
    "repeats_bare": (f"select i as value {ROWS}", "two rows have the same labels"),
    "repeats_hush": (f"select 'hush' as label, i as value {ROWS}", "two rows have the same labels"),
    "reads_hush": ("select 'hush'::text::float8 as value", "22P02: InvalidTextRepresentationError"),
    "raises_hush": ("select public.hush() as value", "23514: CheckViolationError"),
    "buckets_hush": ("select 'hush' as le, 1 as value", "an le is no number"),
    "endless": ("select i::text, i as value from generate_series(1, 1000000) i", "more than 1000 rows"),
    "wide": ("select repeat('x', 1025) as label, 1 as value", "longer than 1024"),
    "overflows": ("select 1e400::numeric as value", "22003"),
    "bad-name": ("select 1 as value", "name is not a metric's name"),
    "0name": ("select 1 as value", "name is not a metric's name"),
    "with\nbreak": ("select 1 as value", "name is not a metric's name"),
    "ends_in_break\n": ("select 1 as value", "name is not a metric's name"),
    "nämé": ("select 1 as value", "name is not a metric's name"),
    "has:colon": ("select 1 as value", "name is not a metric's name"),
    "bad_label": ("select 'x' as \"a b\", 1 as value", "is not a label's name"),
    "bad_label_break": ("select 'x' as \"a\n\", 1 as value", "is not a label's name"),
    "reserved_label": ("select 'x' as __name__, 1 as value", "is not a label's name"),
    "number_label": ("select 7 as device, 1 as value", "column device of type int4 is no label"),
    "json_label": ("select '{}'::jsonb as details, 1 as value", "of type jsonb is no label"),
    "no_value": ("select 'x' as label", "no column value"),
    "no_columns": ("select", "no column value"),
    "text_value": ("select '1' as value", "value cannot be of type text"),
    "date_value": ("select date '2026-01-01' as value", "value cannot be of type date"),
    "naive_value": ("select timestamp '2026-01-01' as value", "value cannot be of type timestamp"),
    "array_value": ("select array[1] as value", "value cannot be of type _int4"),
    "money_value": ("select 1::money as value", "value cannot be of type money"),
    "sinking_total": ("select -1 as value", "counter cannot be"),
    "nan_total": ("select 'NaN'::float8 as value", "counter cannot be"),
    "counted_le_total": ("select '+Inf' as le, 1 as value", "counter cannot have a column le"),
    "open_buckets": ("select 1.0 as le, 1 as value", "lacks its bucket"),
    "falling_buckets": ("select * from (values (1, 5), ('Infinity'::float8, 4)) v (le, value)", "not cumulative"),
    "double_buckets": ("select * from (values ('1', 1), ('1.0', 1), ('+Inf', 1)) v (le, value)", "twice"),
    "half_buckets": ("select '+Inf' as le, 0.5 as value", "cannot count"),
    "nan_buckets": ("select '+Inf' as le, 'NaN'::float8 as value", "cannot count"),
    "null_buckets": ("select null::text as le, 1 as value", "an le is no number"),
    "odd_buckets": ("select 'tall' as le, 1 as value", "an le is no number"),
    "sunk_buckets": ("select '+Inf' as le, -1 as value", "not cumulative"),
    "sum_buckets": ("select * from (values ('1', 1, 1), ('+Inf', -3.0, 1)) v (le, sum, value)", "sum of a histogram"),
    "exporter_up": ("select 1 as value", "clashes with a metric of the exporter itself"),
    "process_noise_total": ("select 1 as value", "clashes with view process_noise"),
    "auth_failures": ("select 1 as value", "clashes with a metric of the exporter itself"),
    "late_seconds_bucket": ("select 1 as value", "clashes with view late_seconds"),
    "late_seconds_sum": ("select 1 as value", "clashes with view late_seconds"),
    "private_function": ("select public.private() as value", "42501"),
    "unreadable": ("select 1 as value", "may not select"),
}  # fmt: skip


async def test_a_bad_view_is_left_out_whole(
    conn: asyncpg.Connection, role_url: RoleUrl, caplog: pytest.LogCaptureFixture
) -> None:
    """For each kind of failure the view has no sample, the log says why, and other views are unaffected."""
    await as_owner(
        conn,
        "create view metrics.process_noise as select 1 as value",
        "create view metrics.late_seconds as select '+Inf' as le, 1 as value",
        "create function public.private() returns integer language plpgsql as 'begin return 1; end'",
        "create function public.hush() returns integer language plpgsql as"
        " $$begin raise check_violation using message = 'row (hush)', detail = 'hush', hint = 'hush'; end$$",
        "grant execute on function public.hush() to public",
        *(f'create view metrics."{name}" as {sql}' for name, (sql, _) in BAD.items()),
        "revoke execute on function public.private() from public",
        "revoke all on metrics.unreadable from pulse_exporter",
        "create view metrics.zebra as select 1 as value",
    )
    async with exporting(role_url("pulse_exporter"), exporter_view_timeout_seconds=0.5) as scraper:
        with caplog.at_level(logging.WARNING, logger="exporter"):
            found = await scraper.scrape()
            again = await scraper.scrape()
        served = found.views()
        assert {name for name, success in served.items() if not success} == set(BAD)
        assert found.value("pulse_zebra") == 1
        assert found.value("pulse_late_seconds_bucket", le="+Inf") == 1
        own = {"pulse_exporter_up", "pulse_auth_failures"}
        assert {f"pulse_{name}" for name in BAD} & found.names() <= own
        assert found.value("pulse_exporter_up") == 1
        assert served == again.views()

    reasons = {record.view: record.reason for record in caplog.records if record.message == "view left out"}  # type: ignore[attr-defined]
    assert {name: bool(re.search(BAD[name][1], reasons[name])) for name in BAD} == dict.fromkeys(BAD, True), reasons
    assert "hush" not in "".join(reasons.values())
    # A lasting fault is logged once, not once a scrape.
    faults = [(record.view, record.reason) for record in caplog.records if record.message == "view left out"]  # type: ignore[attr-defined]
    assert len(faults) == len(set(faults))


async def test_slow_views_come_last_and_the_deadline_holds(conn: asyncpg.Connection, role_url: RoleUrl) -> None:
    """Hanging views cannot starve the healthy ones of a scrape with little time."""
    await as_owner(
        conn,
        *(f"create view metrics.slow_{n} as select 1 as value, pg_sleep(60)::text as slept" for n in range(5)),
        "create view metrics.zebra as select 1 as value",
    )
    async with exporting(
        role_url("pulse_exporter"), exporter_view_timeout_seconds=0.3, exporter_deadline_seconds=8
    ) as scraper:
        await scraper.scrape()
        # Repeated: a view without a turn in one scrape must not come first in the next.
        for _ in range(3):
            before = asyncio.get_running_loop().time()
            found = await scraper.scrape(**{"x-prometheus-scrape-timeout-seconds": "1.1"})
            took = asyncio.get_running_loop().time() - before
            assert (found.value("pulse_exporter_up"), found.value("pulse_zebra")) == (1, 1)
            assert {name for name, success in found.views().items() if not success} == {f"slow_{n}" for n in range(5)}
            assert took < 2  # the margin is for a busy machine; that not all were asked shows the deadline
            # There is no time for all five; the rest are reported instead of being silently absent.
            asked = found.series("pulse_exporter_view_duration_seconds", "view")
            assert 0 < len([view for (view,) in asked if view.startswith("slow_")]) < 5


def test_the_scrapers_patience_is_the_deadline() -> None:
    """The header less a margin, never more than our own limit; an invalid header counts as absent."""
    assert scrape_seconds("10", longest=30) == 9.5
    assert scrape_seconds("0.6", longest=30) == 0.3
    assert scrape_seconds("100", longest=9.5) == 9.5
    assert [scrape_seconds(odd, longest=9.5) for odd in (None, "", "x", "nan", "-1", "0", "inf", "1e999")] == [9.5] * 8


async def test_formats_are_negotiated(role_url: RoleUrl) -> None:
    """Prometheus's header yields OpenMetrics; headers that break or fool the encoder yield a format we can write."""
    prometheus = (
        "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,application/openmetrics-text;version=0.0.1;q=0.5,"
        "text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
    )
    expected = {
        prometheus: "application/openmetrics-text; version=1.0.0; charset=utf-8; escaping=allow-utf-8",
        "application/openmetrics-text": "application/openmetrics-text; version=1.0.0; charset=utf-8",
        "application/openmetrics-text; version=junk": "text/plain; version=0.0.4; charset=utf-8",
        "application/openmetrics-text; version=99.0.0": "text/plain; version=0.0.4; charset=utf-8",
        "application/openmetrics-text; version=": "text/plain; version=0.0.4; charset=utf-8",
        "text/plain; version=1.x": "text/plain; version=0.0.4; charset=utf-8",
        ",;=,": "text/plain; version=0.0.4; charset=utf-8",
        "": "text/plain; version=0.0.4; charset=utf-8",
    }
    async with exporting(role_url("pulse_exporter")) as scraper:
        found = {}
        for accept in expected:
            answer = await scraper.client.get("/metrics", headers={"accept": accept})
            found[accept] = answer.headers["content-type"]
            assert answer.status_code == 200
            assert answer.text.endswith("# EOF\n") == found[accept].startswith("application/openmetrics")
        assert found == expected
