"""Wrong clocks, late readings, and several values for one instant."""

import asyncio
from datetime import timedelta

import asyncpg
import pytest

from services.ui_iot.ingest.readings import _read_timestamp
from tests.support import clock, seed
from tests.support.evaluation import evaluate, story
from tests.support.wait import until

Reading = tuple[float, float]


async def at(conn: asyncpg.Connection, seconds: float) -> None:
    """Set the server's clock to seconds after NOON."""
    await conn.execute(clock.set_clock(seed.NOON + timedelta(seconds=seconds)))


@pytest.fixture
async def stopped(conn: asyncpg.Connection) -> asyncpg.Connection:
    """Connection with a device and a stopped clock."""
    await conn.execute(clock.create_clock(seed.NOON))
    await seed.device(conn)
    return conn


async def send(conn: asyncpg.Connection, *readings: Reading) -> tuple[int, int, int]:
    """Send a request about boiler-1 and evaluate it; return the counts accepted, duplicates and overwritten."""
    row = await conn.fetchrow(
        "select accepted, duplicates, overwritten from ingest.record_readings('acme', $1, $2, $3, $4, null)",
        ["boiler-1"] * len(readings),
        ["temperature"] * len(readings),
        [seed.NOON + timedelta(seconds=reading[0]) for reading in readings],
        [float(reading[1]) for reading in readings],
    )
    return row["accepted"], row["duplicates"], row["overwritten"]


async def test_a_slow_clock_waits_for_seconds_like_any_other(stopped: asyncpg.Connection) -> None:
    """Ten minutes behind, a breach opens for_seconds after its arrival, and the alert ends after it began."""
    await seed.rule(stopped, for_seconds=60)
    slow = -600
    await send(stopped, (slow, 90))
    await evaluate(stopped)
    await at(stopped, 59)
    await evaluate(stopped)
    assert await story(stopped) == []
    await at(stopped, 60)
    await evaluate(stopped)
    assert await story(stopped) == [("opened", slow + 60)]
    await at(stopped, 70)
    await send(stopped, (slow + 70, 20))
    await evaluate(stopped)
    assert await story(stopped) == [("opened", slow + 60), ("closed", slow + 70)]


@pytest.mark.parametrize("requests", [1, 8, 64])
@pytest.mark.parametrize(("for_seconds", "expected"), [(300, []), (60, [("opened", -2860), ("closed", -2720)])])
async def test_a_buffered_series_gives_the_same_alerts_however_it_is_cut(
    stopped: asyncpg.Connection, requests: int, for_seconds: int, expected: list[tuple[str, float]]
) -> None:
    """An hour-old series with a breach of 200 seconds."""
    await seed.rule(stopped, for_seconds=for_seconds)
    series = [(-3600 + 20 * n, 90 if 34 <= n < 44 else 20) for n in range(64)]
    size = len(series) // requests
    for number in range(requests):
        await at(stopped, number)
        await send(stopped, *series[number * size : (number + 1) * size])
        await evaluate(stopped)
    await at(stopped, 1000)
    await evaluate(stopped)
    assert await story(stopped) == expected


@pytest.mark.parametrize(("for_seconds", "opened"), [(0, 1), (30, 31)])
async def test_a_quiet_reading_stamped_ahead_hides_no_breach(
    stopped: asyncpg.Connection, for_seconds: int, opened: float
) -> None:
    """One value from a clock that is 240 seconds ahead, then a breach: one alert, which stays open."""
    await seed.rule(stopped, for_seconds=for_seconds)
    await send(stopped, (240, 20))
    for second in range(1, 60, 6):
        await at(stopped, second)
        await send(stopped, (second, 90))
        await evaluate(stopped)
    assert await story(stopped) == [("opened", opened)]


async def test_a_breach_stamped_ahead_ends_with_the_next_quiet_reading(stopped: asyncpg.Connection) -> None:
    await seed.rule(stopped)
    await send(stopped, (240, 90))
    await at(stopped, 5)
    await send(stopped, (5, 20))
    await evaluate(stopped)
    assert await story(stopped) == [("opened", 0), ("closed", 5)]


async def test_readings_stamped_ahead_in_one_request_count_at_its_arrival(stopped: asyncpg.Connection) -> None:
    """Two alerts that begin and end at one moment keep their events apart."""
    await seed.rule(stopped)
    await send(stopped, (100, 90), (110, 20), (120, 91), (130, 20), (140, 92))
    await evaluate(stopped)
    assert await story(stopped) == [("opened", 0), ("closed", 0), ("opened", 0), ("closed", 0), ("opened", 0)]
    rows = await stopped.fetch(
        "select array_agg(e.kind order by e.event_id) from alert_events e group by e.alert_id order by e.alert_id"
    )
    assert [row[0] for row in rows] == [["opened", "closed"], ["opened", "closed"], ["opened"]]


async def test_closing_by_hand_never_precedes_the_opening(stopped: asyncpg.Connection) -> None:
    """This holds with a fast device clock, and after the server's own clock was set back."""
    await seed.rule(stopped)
    await at(stopped, 30)
    await send(stopped, (240, 90))
    await evaluate(stopped)
    await at(stopped, 10)
    await stopped.execute(
        "select evaluator.close_alerts('acme', array(select alert_id from alerts), 'by hand', 'ann', null)"
    )
    assert await story(stopped) == [("opened", 30), ("closed", 30)]
    message = await stopped.fetchval("select message from alert_events where kind = 'closed'")
    assert message == "temperature of boiler-1 was 90 at the end: by hand"


async def test_a_recreated_device_inherits_nothing(stopped: asyncpg.Connection) -> None:
    """It gets neither stored nor waiting readings, neither the newest value nor the lateness."""
    await seed.rule(stopped)
    await stopped.execute("select set_config('pulse.tenant_id', 'acme', false)")
    await stopped.execute("delete from devices")
    body = '{"device_id": "boiler-1"}'
    await stopped.execute("select ingest.create_device($1::text::jsonb)", body)
    await send(stopped, (-50, 20), (-40, 20))
    await evaluate(stopped)
    await send(stopped, (-30, 90))  # still waiting when the device goes
    await stopped.execute("select ingest.delete_device('boiler-1')")
    await stopped.execute("select ingest.create_device($1::text::jsonb)", body)
    assert await evaluate(stopped) == 1
    assert await story(stopped) == []
    assert await stopped.fetchval("select count(*) from device_state") == 0
    assert await send(stopped, (-50, 20), (-45, 90)) == (2, 0, 0)
    await evaluate(stopped)
    assert await story(stopped) == [("opened", -45)]
    assert await send(stopped, (-50, 20), (-45, 90)) == (0, 2, 0)
    assert await stopped.fetchval("select max(overwrites) from telemetry") == 0


async def test_two_values_for_one_instant_are_both_evaluated(stopped: asyncpg.Connection) -> None:
    """They are evaluated in the order of arrival, within a request and over requests; the last one is stored."""
    await seed.rule(stopped)
    assert await send(stopped, (-9, 20), (-9, 90), (-9, 90), (-9, 21)) == (1, 1, 2)
    await evaluate(stopped)
    assert await story(stopped) == [("opened", -9), ("closed", -9)]
    assert await send(stopped, (-9, 21)) == (0, 1, 0)
    assert await send(stopped, (-9, 95), (-9, 95)) == (0, 1, 1)
    await evaluate(stopped)
    assert await story(stopped) == [("opened", -9), ("closed", -9), ("opened", -9)]
    # The first of several values is compared with the stored one.
    assert await send(stopped, (-9, 95), (-9, 96)) == (0, 1, 1)
    stored = await stopped.fetchrow("select value, overwrites from telemetry")
    assert tuple(stored) == (96.0, 2)
    assert await stopped.fetchval("select value from device_state") == 96.0
    audited = await stopped.fetch(
        "select details ->> 'overwritten' from audit_log where event_type = 'device.readings_accepted'"
        " order by recorded_at"
    )
    assert [row[0] for row in audited] == ["2", "1", "1"]


async def test_concurrent_requests_count_in_the_order_of_their_commits(
    stopped: asyncpg.Connection, database_url: str
) -> None:
    """The second value for an instant waits for the first, overwrites it, and is evaluated after it."""
    await seed.rule(stopped)
    await send(stopped, (-20, 20))
    await evaluate(stopped)
    first = await asyncpg.connect(database_url)
    try:
        transaction = first.transaction()
        await transaction.start()
        await seed.readings(first, (-10, 90))
        waiting = asyncio.create_task(send(stopped, (-10, 30), (-15, 95)))
        await until(lambda: first.fetchval("select exists (select from pg_locks where not granted)"))
        await transaction.commit()
        assert await waiting == (1, 0, 1)
    finally:
        await first.close()
    await evaluate(stopped, limit=1)
    # -15 came after -10, so it was late, and the alert of -10 outlasts it.
    assert await story(stopped) == [("opened", -10), ("closed", -10)]


@pytest.mark.parametrize(
    ("sent", "microseconds"),
    [
        ("2026-01-05T12:00:00.123456789Z", 123456),
        ("2026-01-05T12:00:00.1234569Z", 123456),
        ("2026-01-05T12:00:00.9999999Z", 999999),
        ("2026-01-05t13:00:00.5+01:00", 500000),
        (1767614400.123456, 123456),
        (1767614400.1234567, 123457),
    ],
)
def test_an_instant_is_a_microsecond(sent: str | float, microseconds: int) -> None:
    """Further digits of a text are cut off. A number is rounded, because a double is no more precise."""
    assert _read_timestamp(sent) == seed.NOON + timedelta(microseconds=microseconds)
