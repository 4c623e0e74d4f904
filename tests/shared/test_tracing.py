"""Trace ids from clients are taken if valid, replaced if not, and sent on unchanged."""

import asyncio
import random
import re
import time
from datetime import UTC, datetime, timedelta
from uuid import UUID

import asyncpg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.shared import db, tracing
from tests.support import seed
from tests.support.wait import until

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN = "00f067aa0ba902b7"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (TRACE, TRACE),
        ("4BF92F35-77B3-4DA6-A3CE-929D0E0E4736", TRACE),
        (TRACE.upper(), None),
        ("0" * 32, None),
        ("00000000-0000-0000-0000-000000000000", None),
        ("{4bf92f35-77b3-4da6-a3ce-929d0e0e4736}", None),
        ("urn:uuid:4bf92f35-77b3-4da6-a3ce-929d0e0e4736", None),
        ("4bf92f3577b34da6a3ce929d0e0e473\uff16", None),
        (TRACE + "\n", None),
        ("-" * 5000, None),
    ],
)
def test_x_trace_id(value: str, expected: str | None) -> None:
    """32 lower-case hex digits or a UUID, nothing else."""
    assert tracing.parse_trace_id(value) == expected


@given(
    st.lists(st.tuples(st.sampled_from([b"traceparent", b"tracestate", b"x-trace-id"]), st.binary()), max_size=5),
    st.booleans(),
)
def test_any_headers_give_a_valid_context(headers: list[tuple[bytes, bytes]], trust: bool) -> None:
    context = tracing.from_headers(headers, trust=trust)
    assert re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-0[13]", tracing.format_traceparent(context))


@pytest.mark.parametrize("name", [b"traceparent", b"tracestate", b"x-trace-id"])
def test_each_header_costs_the_same(name: bytes) -> None:
    """Headers arrive before authentication and block the only event loop: 20,000 once took a second."""
    started = time.process_time()
    tracing.from_headers([(b"traceparent", f"00-{TRACE}-{SPAN}-01".encode()), *[(name, b"")] * 20_000])
    assert time.process_time() - started < 0.1


def test_traceparent_wins_and_the_parents_span_is_not_reused() -> None:
    """The traceparent header takes precedence over X-Trace-ID; each step has its own span."""
    context = tracing.from_headers([(b"x-trace-id", b"a" * 32), (b"traceparent", f"00-{TRACE}-{SPAN}-01".encode())])
    assert context.trace_id == TRACE
    assert context.span_id != SPAN
    assert context.parent_span_id == SPAN


def id_at(seconds: float) -> str:
    """Return a trace id with a time the given number of seconds from now."""
    return f"{int((time.time() + seconds) * 1000):012x}7bea8{'1' * 15}"


UNMARKED = (
    "0237a41e02f27fa7a27cb93a313b2585",  # random, and by chance a UUID of version 7 from 2047
    id_at(400).replace("7bea8", "7abc8"),
    id_at(400).replace("7bea8", "7beac"),
    id_at(400).replace("7bea8", "4bea8"),
)
"""Ids of other systems that carry a later time in our place."""


@pytest.mark.parametrize("header", ["traceparent", "x-trace-id"])
def test_a_trace_that_is_not_continued_is_named(header: str) -> None:
    """For an untrusted caller or an impossible time, our trace is new and the caller's is recorded beside it."""

    def read(trace_id: str, *, trust: bool = True) -> tracing.TraceContext:
        value = trace_id if header == "x-trace-id" else f"00-{trace_id}-{SPAN}-03"
        return tracing.from_headers([(header.encode(), value.encode()), (b"tracestate", b"foo=1")], trust=trust)

    for context, theirs in (
        (read(TRACE, trust=False), TRACE),
        (read(id_at(400)), id_at(400)),
        (read(id_at(86400 * 365)), id_at(86400 * 365)),
    ):
        assert context.foreign_trace_id is not None
        assert context.foreign_trace_id[12:] == theirs[12:]
        assert context.trace_id[12:] != theirs[12:]
        assert (context.parent_span_id, context.tracestate) == (None, None)
    for theirs in (TRACE, id_at(200), id_at(-86400 * 365), "f" * 12 + "7bea8" + "1" * 15, *UNMARKED):
        context = read(theirs)
        assert (context.trace_id, context.foreign_trace_id) == (theirs, None)


def test_a_random_trace_is_continued() -> None:
    """Of 200,000 ids without our mark, none starts another trace; every 64th is a UUID of version 7."""
    randomness = random.Random(17)
    ids = [f"{randomness.getrandbits(128) | 1:032x}" for _ in range(200_000)]
    assert sum(trace_id[12] == "7" and trace_id[16] in "89ab" for trace_id in ids) > 3_000
    assert [trace_id for trace_id in ids if tracing.carries_time(trace_id)] == []


def test_the_random_flag_comes_from_the_header_or_the_id() -> None:
    """Our ids are random; a caller's are if its flag says so. A row keeps only the id, so its layout decides."""
    assert tracing.start().flags == "03"
    for flags, expected in (("00", "01"), ("01", "01"), ("02", "03"), ("ff", "03"), ("fd", "01")):
        assert tracing.from_headers([(b"traceparent", f"00-{TRACE}-{SPAN}-{flags}".encode())]).flags == expected
    assert tracing.continued(TRACE).flags == "01"
    assert tracing.continued(tracing.new_trace_id()).flags == "03"


def test_a_block_has_its_trace_and_gives_it_back() -> None:
    """use_trace_id nests and restores; a row without a trace starts a new one."""
    assert tracing.current() is None
    with tracing.use_trace_id(TRACE) as outer:
        with tracing.use_trace_id(None) as inner:
            assert tracing.current() is inner
            assert inner.trace_id != outer.trace_id
        assert tracing.current_trace_id() == TRACE
    assert tracing.current() is None


def test_an_id_of_our_own_carries_its_time() -> None:
    """It is a UUID of version 7; an id that looks like one by chance carries no time."""
    before = time.time_ns() // 1_000_000
    ids = [tracing.new_trace_id() for _ in range(1000)]
    after = time.time_ns() // 1_000_000
    for trace_id in ids:
        assert tracing.parse_trace_id(trace_id) == trace_id
        assert UUID(trace_id).version == 7
        assert before <= int(trace_id[:12], 16) <= after
    assert {trace_id[12:16] for trace_id in ids} == {"7bea"}
    assert len({trace_id[18:] for trace_id in ids}) == 1000


TIMES = [
    ("0190163d-8694-7bea-aea5-966c26f8ad91", datetime(2024, 6, 14, 10, 14, 9, 300000, tzinfo=UTC)),
    ("016f5e66-e800-7bea-8000-000000000000", datetime(2020, 1, 1, tzinfo=UTC)),
    ("016f5e66-e7ff-7bea-8000-000000000000", None),
    ("024bce5c-efff-7bea-bfff-ffffffffffff", datetime(2049, 12, 31, 23, 59, 59, 999000, tzinfo=UTC)),
    ("024bce5c-f000-7bea-8000-000000000000", None),
    ("0190163d-8694-739b-aea5-966c26f8ad91", None),
    ("0190163d-8694-4bea-aea5-966c26f8ad91", None),
    ("0190163d-8694-7bea-cea5-966c26f8ad91", None),
    ("ffffffff-ffff-7bea-bfff-ffffffffffff", None),
    (TRACE, None),
]


async def test_sql_says_the_same_of_an_id(conn: asyncpg.Connection) -> None:
    """Python and SQL both compute span ids and the time in a trace id."""
    for trace_id, expected in TIMES:
        bare = trace_id.replace("-", "")
        # A worker recognizes one of our ids by the time in it.
        assert tracing.continued(bare).flags == ("01" if expected is None else "03")
        bound = await conn.fetchval("select core.trace_started_at($1)", bare)
        assert bound == (expected and expected - timedelta(minutes=10))
    for odd in ("", "x" * 32, TRACE.upper(), None):
        assert await conn.fetchval("select core.trace_started_at($1)", odd) is None
    for kind, node_id in (("job", 7), ("attempt", "7:2"), ("reading", ""), ("audit", "\u00e9\U0001f600")):
        twin = await conn.fetchval("select core.span_id($1, $2, $3)", TRACE, kind, str(node_id))
        assert tracing.span_id_of(TRACE, kind, node_id) == twin
    # Computed by hand: printf '%s' 4bf9…4736:job:7 | sha256sum
    assert tracing.span_id_of(TRACE, "job", 7) == "48c06be263add452"


async def test_a_statement_names_its_request(conn: asyncpg.Connection, app_pool: db.Pool) -> None:
    """While it runs or waits, pg_stat_activity and the server's log show it; a pooled connection resets it."""
    named = (
        "select array_agg(application_name order by application_name) from pg_stat_activity"
        " where application_name like 'pulse-ui_iot%' and datname = current_database()"
    )
    ann = db.Actor("user", "ann")
    with tracing.use(tracing.start()) as context:
        async with db.act(app_pool, tenant_id="acme", actor=ann, service="ui_iot") as one:
            async with db.read_as(app_pool, tenant_id="acme") as two:
                assert await conn.fetchval(named) == [f"pulse-ui_iot {context.trace_id}"] * 2
                await two.execute("select core.name_request(null)")
                assert await two.fetchval("show application_name") == "pulse-ui_iot"
            assert await one.fetchval("show application_name") == f"pulse-ui_iot {context.trace_id}"
    await seed.device(conn)
    async with conn.transaction():
        await conn.execute("lock table devices in access exclusive mode")
        reading = ("acme", ["boiler-1"], ["heat"], [datetime.now(UTC)], [1.0], TRACE)
        blocked = asyncio.create_task(
            app_pool.execute("select ingest.record_readings($1, $2, $3, $4, $5, $6)", *reading)
        )

        async def waits() -> bool:
            # Not by conn: a transaction sees one snapshot of this view.
            query = "select true from pg_stat_activity where wait_event_type = 'Lock' and application_name = $1"
            return bool(await app_pool.fetchval(query, f"pulse-ui_iot {TRACE}"))

        await until(waits)
    await blocked
    assert await conn.fetchval(named) == ["pulse-ui_iot"] * 2
    # A service that acts for itself has the same name.
    [row] = await conn.fetch("select actor_type, actor_id from audit_log where category = 'device'")
    assert tuple(row) == ("service", "ui_iot")
