"""Numbers in messages keep their original form."""

from collections.abc import Iterator

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.delivery_worker.channels.wording import facts, number_text
from tests.support.notifications import notification

FINITE = st.floats(allow_nan=False, allow_infinity=False)


SHOWN = [
    (1000001, "1000001"),
    (50.00012, "50.00012"),
    (81.5, "81.5"),
    (-0.0, "0"),
    (100, "100"),
    (0.00001, "0.00001"),
    (123456789012345680, "123456789012345680"),
    (1e21, "1e+21"),
    (-1.5e-7, "-1.5e-07"),
    (0.1 + 0.2, "0.30000000000000004"),
]


@pytest.fixture
def session(database_url: str) -> Iterator[psycopg.Connection[tuple[object, ...]]]:
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield connection


def test_a_number_is_shown_as_sent(session: psycopg.Connection[tuple[object, ...]]) -> None:
    """The database and the channels use the same form."""
    for value, text in SHOWN:
        assert number_text(value) == text
        assert session.execute("select core.number_text(%s::float8)", [value]).fetchone() == (text,)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(value=FINITE)
def test_no_digit_is_lost(session: psycopg.Connection[tuple[object, ...]], value: float) -> None:
    assert float(number_text(value)) == value
    row = session.execute("select core.number_text(%s::float8)", [value]).fetchone()
    # If several shortest forms of a large number exist, Postgres may choose another.
    assert row is not None
    assert float(str(row[0])) == value


def test_the_facts_of_a_notification_show_the_number() -> None:
    assert ("temperature", "1000001") in facts(notification(alert={"value": 1000001.0}))
