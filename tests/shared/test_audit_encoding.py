"""The program that verifies exports computes the bytes that Postgres hashed, for any event."""

import json
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.support.exported import VERIFIER

# Postgres stores no NUL and no lone surrogate.
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
nasty = st.sampled_from(
    ["", " ", "\u2028", "\x7f", "\x1b[31m", 'quo"te', "back\\slash", "\\u0000", "é", "e\u0301", "\U0001f4a5"]
)
strings = texts | nasty
numbers = st.from_regex(
    r"-?(0|[1-9][0-9]{0,24})(\.[0-9]{1,24})?([eE][+-]?[0-9]{1,2})?", fullmatch=True
) | st.sampled_from(
    ["1e400", "-1E-400", "1.0", "1.00", "1.000000000000000000000000000001", "-0", "-0.0", "0e5", "1e0", "0.1e-7"]
)


def written(value: Any) -> str:
    """Return JSON text for a tree whose numbers are already texts; keys may repeat."""
    if isinstance(value, tuple):
        return str(value[0])
    if isinstance(value, list):
        return f"[{','.join(map(written, value))}]"
    if isinstance(value, dict):
        pairs = [f"{json.dumps(key)}:{written(inner)}" for key, inner in value.items()]
        return f"{{{','.join([*pairs, *pairs[:1]])}}}"
    return json.dumps(value)


documents = st.recursive(
    st.none() | st.booleans() | strings | numbers.map(lambda text: (text,)),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(strings, inner, max_size=5),
    max_leaves=12,
).map(written)
maybe = st.none() | strings
doubles = st.floats(allow_nan=False, allow_infinity=False) | st.sampled_from([-0.0, 1e308, 5e-324, 0.1, 1e16, 1e-7])
times = st.datetimes().map(lambda time: time.isoformat() + "Z")
addresses = st.ip_addresses().map(str) | st.sampled_from(
    [
        "10.0.0.1/24",
        "::ffff:192.0.2.1",
        "::/0",
        "0.0.0.0/0",
        "2001:db8::1/64",
        "fe80::1/128",
        "::1.2.3.4",
        "255.255.255.255/32",
    ]
)


@pytest.fixture
def connection(database_url: str) -> Iterator[psycopg.Connection[Any]]:
    """Superuser connection with the time zone of an export."""
    with psycopg.connect(database_url, autocommit=True) as opened:
        opened.execute("set timezone = 'UTC'")
        yield opened


@pytest.mark.slow
@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    tenant=strings, text=strings, maybe=st.tuples(*[maybe] * 7), details=documents, duration=st.none() | doubles,
    address=st.none() | addresses, times=st.tuples(times, times), event_id=st.uuids(), xid=st.integers(0, 2**64 - 1),
)  # fmt: skip
@example(
    tenant="", text="", maybe=("",) * 7, details='{"bb":1,"a":1.00,"aa":{},"é":[],"":null}', duration=1e300,
    address="::ffff:192.0.2.1", times=("0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999Z"),
    event_id="00000000-0000-0000-0000-000000000000", xid=2**64 - 1,
)  # fmt: skip
@example(
    tenant="t", text="t", maybe=(None,) * 7, details="null", duration=-0.0, address=None,
    times=("2026-01-01T00:00:00.5Z",) * 2, event_id="ffffffff-ffff-ffff-ffff-ffffffffffff", xid=0,
)  # fmt: skip
def test_the_same_bytes_are_hashed(
    connection: psycopg.Connection[Any], tenant: str, text: str, maybe: tuple[str | None, ...], details: str,
    duration: float | None, address: str | None, times: tuple[str, str], event_id: object, xid: int,
) -> None:  # fmt: skip
    """In SQL from the row, and in Python from its JSON."""
    values = (
        tenant, times[0], str(event_id), times[1], text, text, text, *maybe[:3], text, text, details, text,
        *maybe[3:6], address, maybe[6], duration, str(xid),
    )  # fmt: skip
    row = connection.execute(
        "select audit._leaf_hash(l), audit._event_json(l) from (select (row(%s::text, %s::timestamptz, %s::uuid,"
        " %s::timestamptz, %s::text, %s::text, %s::text, %s::text, %s::text, %s::text, %s::text, %s::text, %s::jsonb,"
        " %s::text, %s::text, %s::text, %s::text, %s::inet, %s::text, %s::float8, %s::xid8)::public.audit_log).*) l",
        values,
    ).fetchone()
    assert row is not None
    assert "\n" not in row[1]
    assert VERIFIER.row_hash(VERIFIER.parse(row[1])) == row[0]
