"""Readings become alerts: each reading is evaluated once, in order, at a cost proportional to the readings."""

import asyncio
import random
import time
from collections.abc import Sequence
from datetime import timedelta

import asyncpg
import pytest

from services.shared.db import Pool
from tests.support import seed
from tests.support.alert_machine import Machine, matches_events
from tests.support.clock import stop_clock
from tests.support.evaluation import evaluate, rows_read, story
from tests.support.wait import until


async def test_a_spike_inside_a_batch_opens_and_closes(
    conn: asyncpg.Connection,
) -> None:
    """One breaching reading among quiet ones is an alert with a beginning and an end."""
    await seed.device(conn)
    await seed.rule(conn)

    await seed.readings(conn, (0, 20), (1, 90), (2, 20), trace_id="a" * 32)
    assert await evaluate(conn) == 3

    assert await story(conn) == [("opened", 1), ("closed", 2)]
    alert = await conn.fetchrow("select * from alerts")
    assert (alert["status"], alert["value"], alert["trace_id"]) == (
        "closed",
        90.0,
        "a" * 32,
    )
    assert alert["message"] == "temperature of boiler-1 is 90 (> 80)"
    assert await conn.fetchval("select count(*) from rule_state") == 0
    assert await conn.fetchval("select count(*) from evaluator.inbox") == 0
    audited = await conn.fetch("select event_type, trace_id from audit_log where category = 'alert' order by timestamp")
    assert [tuple(row) for row in audited] == [
        ("alert.opened", "a" * 32),
        ("alert.closed", "a" * 32),
    ]


async def test_clear_and_refire_in_one_batch(conn: asyncpg.Connection) -> None:
    """An open alert that closes and opens again in one batch becomes two alerts, with events in order."""
    await seed.device(conn)
    await seed.rule(conn)

    await seed.readings(conn, (0, 90))
    await evaluate(conn)
    await seed.readings(conn, (1, 20), (2, 95), (3, 20), (4, 99))
    await evaluate(conn)

    assert await story(conn) == [
        ("opened", 0),
        ("closed", 1),
        ("opened", 2),
        ("closed", 3),
        ("opened", 4),
    ]
    assert await conn.fetchval("select count(*) from alerts where status = 'open'") == 1
    state = await conn.fetchrow("select firing, last_value from rule_state")
    assert (state["firing"], state["last_value"]) == (True, 99.0)


@pytest.mark.parametrize(
    ("operator", "breaching", "quiet"),
    [
        (">", 81, 80),
        (">=", 80, 79),
        ("<", 79, 80),
        ("<=", 80, 81),
        ("=", 80, 81),
        ("!=", 81, 80),
    ],
)
async def test_each_operator(conn: asyncpg.Connection, operator: str, breaching: float, quiet: float) -> None:
    """The six comparisons open on one side of the threshold and close on the other."""
    await seed.device(conn)
    await seed.rule(conn, operator=operator)
    await seed.readings(conn, (0, quiet), (1, breaching), (2, quiet))
    await evaluate(conn)
    assert await story(conn) == [("opened", 1), ("closed", 2)]


async def test_for_seconds_over_batches(conn: asyncpg.Connection) -> None:
    """A breach opens once it has lasted for_seconds without a quiet reading, counted over batches."""
    await seed.device(conn)
    await seed.rule(conn, for_seconds=60)
    await stop_clock(conn, "2026-01-05 13:00:00Z")

    for batch in ([(0, 90)], [(30, 90), (40, 20), (50, 91)], [(100, 92)]):
        await seed.readings(conn, *batch)
        await evaluate(conn)
        assert await story(conn) == []
    await seed.readings(conn, (110, 93), (200, 94), (300, 10))
    await evaluate(conn)

    assert await story(conn) == [("opened", 110), ("closed", 300)]


async def test_for_seconds_ends_without_a_further_reading(
    conn: asyncpg.Connection,
) -> None:
    """A silent device's breach opens after for_seconds, because no reading has contradicted it."""
    await seed.device(conn)
    await seed.rule(conn, for_seconds=60)
    await stop_clock(conn, "2026-01-05 12:00:00Z")
    await seed.readings(conn, (0, 90), trace_id="b" * 32)
    await stop_clock(conn, "2026-01-05 12:00:59Z")
    await evaluate(conn)
    assert await story(conn) == []

    await stop_clock(conn, "2026-01-05 12:01:00Z")
    await evaluate(conn)

    assert await story(conn) == [("opened", 60)]
    assert await conn.fetchval("select trace_id from alerts") == "b" * 32
    await stop_clock(conn, "2026-01-05 12:01:31Z")
    await seed.readings(conn, (90, 20))
    await evaluate(conn)
    assert await story(conn) == [("opened", 60), ("closed", 90)]


async def test_a_timer_waits_for_readings_that_have_arrived(
    conn: asyncpg.Connection,
) -> None:
    """A due timer does not open while the inbox holds a reading that may end the breach."""
    await seed.device(conn)
    await seed.rule(conn, for_seconds=60)
    await stop_clock(conn, "2026-01-05 12:00:30Z")
    await seed.readings(conn, (0, 90))
    await evaluate(conn)
    await seed.readings(conn, (10, 95), (20, 20))
    await stop_clock(conn, "2026-01-05 13:00:00Z")

    await evaluate(conn, limit=1)  # the first pass consumes only one of the two

    assert await story(conn) == []


async def test_scopes(conn: asyncpg.Connection) -> None:
    """A rule watches one device, the devices with a tag, or every device of its tenant."""
    for device_id, tags in (("a", ("oven",)), ("b", ("oven", "old")), ("c", ())):
        await seed.device(conn, device_id, tags=tags)
    await seed.device(conn, "a", tenant_id="other")
    by_device = await seed.rule(conn, name="one", device_id="c")
    by_tag = await seed.rule(conn, name="tag", tag="oven")
    everywhere = await seed.rule(conn, name="all")
    await seed.rule(conn, name="off", enabled=False)
    await seed.rule(conn, name="theirs", metric="pressure", tenant_id="other")

    await seed.readings(conn, (0, 90, "a"), (0, 90, "b"), (0, 90, "c"))
    await seed.readings(conn, (0, 90, "a"), tenant_id="other")
    await evaluate(conn)

    rows = await conn.fetch("select rule_id, device_id from alerts order by rule_id, device_id")
    expected = {
        (by_device, "c"),
        (by_tag, "a"),
        (by_tag, "b"),
        (everywhere, "a"),
        (everywhere, "b"),
        (everywhere, "c"),
    }
    assert {tuple(row) for row in rows} == expected


async def test_a_reading_committed_late_is_still_evaluated(database_url: str, conn: asyncpg.Connection) -> None:
    """A reading whose transaction commits after a younger one of its shard was evaluated is not skipped."""
    neighbour = await conn.fetchval(
        "select 'n' || n from generate_series(1, 1000) n"
        " where core.shard_of('acme', 'n' || n) = core.shard_of('acme', 'boiler-1') limit 1"
    )
    await seed.device(conn)
    await seed.device(conn, neighbour)
    await seed.rule(conn)
    slow = await asyncpg.connect(database_url)
    try:
        transaction = slow.transaction()
        await transaction.start()
        await seed.readings(slow, (1, 90))
        await seed.readings(conn, (2, 90, neighbour))
        assert await evaluate(conn) == 1
        await transaction.commit()
    finally:
        await slow.close()

    assert await evaluate(conn) == 1
    assert await story(conn) == [("opened", 2), ("opened", 1)]


@pytest.mark.parametrize("cut", [5, 1])
async def test_a_spike_that_arrives_late_is_one_alert(conn: asyncpg.Connection, cut: int) -> None:
    """A late series of breaches becomes one alert that ends at the newest reading, for any division into requests."""
    await seed.device(conn)
    await seed.rule(conn)
    await seed.readings(conn, (10, 20))
    await evaluate(conn)
    late = [(3, 90), (4, 95), (5, 20), (6, 91), (12, 92)]
    for start in range(0, len(late), cut):
        await seed.readings(conn, *late[start : start + cut], trace_id="c" * 32)
        await evaluate(conn)
    assert await story(conn) == [("opened", 3), ("closed", 10), ("opened", 12)]
    assert await conn.fetchval("select count(*) from alert_events where trace_id = $1", "c" * 32) == 3
    closing = await conn.fetchrow("select value, message from alert_events where kind = 'closed'")
    assert tuple(closing) == (20.0, "temperature of boiler-1 is 20 (no longer > 80)")


async def test_late_readings_never_rewind(conn: asyncpg.Connection) -> None:
    """A quiet reading from before the breach does not close the alert."""
    await seed.device(conn)
    await seed.rule(conn)
    await seed.readings(conn, (10, 90))
    await evaluate(conn)
    await seed.readings(conn, (5, 20), (6, 95))
    await evaluate(conn)
    assert await story(conn) == [("opened", 10)]


async def test_a_reading_sent_twice_is_evaluated_once(conn: asyncpg.Connection) -> None:
    """A repeated batch is counted as duplicates and queues nothing."""
    await seed.device(conn)
    assert await seed.readings(conn, (0, 1), (1, 2)) == (2, 0, [])
    assert await seed.readings(conn, (0, 1), (1, 2), (2, 3), (2, 3)) == (1, 3, [])
    assert await evaluate(conn) == 3


async def test_unknown_and_disabled_devices_are_refused_alone(
    conn: asyncpg.Connection,
) -> None:
    """A refused reading is reported with position and reason and does not affect its neighbors."""
    await seed.device(conn)
    await seed.device(conn, "off")
    await conn.execute("update devices set enabled = false where device_id = 'off'")
    accepted, duplicates, refused = await seed.readings(conn, (0, 1, "ghost"), (0, 1), (0, 1, "off"))
    assert (accepted, duplicates) == (1, 0)
    assert refused == [
        {"index": 0, "reason": "unknown_device"},
        {"index": 2, "reason": "device_disabled"},
    ]


async def test_device_state_keeps_the_newest(conn: asyncpg.Connection) -> None:
    """A late reading does not replace a newer one."""
    await seed.device(conn)
    await seed.readings(conn, (5, 50), (3, 30))
    await seed.readings(conn, (4, 40))
    row = await conn.fetchrow("select value, timestamp from device_state")
    assert tuple(row) == (50.0, seed.NOON + timedelta(seconds=5))


def expected_story(values: Sequence[tuple[int, float]], for_seconds: int) -> list[tuple[str, float]]:
    """Return the plain state machine's events for readings that arrive later than all their timestamps."""
    machine = Machine(for_seconds)
    for at, value in values:
        machine.read(at, 10_000, value)
    return machine.events


@pytest.mark.parametrize("seed_number", range(6))
async def test_any_batching_gives_the_same_story(conn: asyncpg.Connection, seed_number: int) -> None:
    """Random readings, cut into random batches and passes, open and close as in the plain state machine."""
    chance = random.Random(seed_number)
    for_seconds = chance.choice([0, 0, 5, 20])
    await stop_clock(conn, "2026-01-05 13:00:00Z")
    devices = [f"d{number}" for number in range(4)]
    rule_id = await seed.rule(conn, for_seconds=for_seconds)
    for device_id in devices:
        await seed.device(conn, device_id)
    sent: dict[str, list[tuple[int, float]]] = {device_id: [] for device_id in devices}
    clock = 0
    for _ in range(25):
        batch: list[tuple[float, float, str]] = []
        for _ in range(chance.randrange(1, 12)):
            clock += chance.randrange(1, 4)
            device_id, value = chance.choice(devices), chance.choice([20.0, 90.0, 90.0])
            batch.append((clock, value, device_id))
        chance.shuffle(batch)
        for at, value, device_id in batch:
            sent[device_id].append((int(at), value))
        await seed.readings(conn, *batch)
        if chance.random() < 0.7:
            await evaluate(conn, limit=chance.choice([1, 8, 1000]))
    await evaluate(conn)

    for device_id in devices:
        rows = await conn.fetch(
            "select e.kind, e.occurred_at, e.changes from alert_events e join alerts a using (tenant_id, alert_id)"
            " where a.rule_id = $1 and a.device_id = $2 order by e.event_id",
            rule_id,
            device_id,
        )
        got = [(row["kind"], int((row["occurred_at"] - seed.NOON).total_seconds()), row["changes"]) for row in rows]
        assert matches_events(got, expected_story(sent[device_id], for_seconds)), (
            f"seed {seed_number} device {device_id}"
        )


async def test_two_evaluators_give_the_story_of_one(conn: asyncpg.Connection, app_pool: Pool) -> None:
    """Several evaluators next to several writers: every reading once, every device in order."""
    devices = [f"d{number}" for number in range(24)]
    await seed.rule(conn)
    for device_id in devices:
        await seed.device(conn, device_id)
    done = asyncio.Event()

    async def write(own: list[str]) -> None:
        for second in range(40):
            value = 90.0 if second % 3 == 1 else 20.0
            await app_pool.fetchrow(
                "select * from ingest.record_readings($1, $2, $3, $4, $5, $6)",
                "acme", own, ["temperature"] * len(own), [seed.NOON + timedelta(seconds=second)] * len(own),
                [value] * len(own), None,
            )  # fmt: skip

    async def work() -> int:
        total = 0
        while True:
            finished = done.is_set()
            row = await app_pool.fetchrow("select * from evaluator.evaluate(500)")
            total += int(row["readings"])
            if finished and row["readings"] == 0:
                return total

    workers = [asyncio.create_task(work()) for _ in range(3)]
    await asyncio.gather(*(write(devices[start::4]) for start in range(4)))
    done.set()
    evaluated = sum(await asyncio.gather(*workers)) + await evaluate(conn)

    assert evaluated == 24 * 40
    expected = expected_story([(second, 90.0 if second % 3 == 1 else 20.0) for second in range(40)], 0)
    for device_id in devices:
        rows = await conn.fetch(
            "select e.kind, e.occurred_at, e.changes from alert_events e join alerts a using (tenant_id, alert_id)"
            " where a.device_id = $1 order by e.event_id",
            device_id,
        )
        story = [(r["kind"], int((r["occurred_at"] - seed.NOON).total_seconds()), r["changes"]) for r in rows]
        assert matches_events(story, expected)


async def test_two_passes_at_once_share_the_lanes_of_a_tenant(conn: asyncpg.Connection, database_url: str) -> None:
    """The second pass neither waits for the lanes of the first one nor finds them all taken."""
    for number in range(64):
        await seed.device(conn, f"d{number}")
    await seed.rule(conn)
    await seed.readings(conn, *((0, 90, f"d{number}") for number in range(64)))
    lanes = "select count(distinct shard) from evaluator.inbox"
    assert await conn.fetchval(lanes) == 16
    await conn.execute("set lock_timeout = '5s'")
    first = await asyncpg.connect(database_url)
    async with first.transaction():
        taken = await first.fetchval("select readings from evaluator.evaluate(10000)")
        assert await first.fetchval(lanes) == 8
        assert taken + await conn.fetchval("select readings from evaluator.evaluate(10000)") == 64
    await first.close()
    assert await conn.fetchval("select count(*) from alerts") == 64


async def test_a_closing_waits_for_the_lane_of_its_device(conn: asyncpg.Connection, database_url: str) -> None:
    """It cannot interleave with the pass that has the lane."""
    await seed.device(conn)
    await seed.rule(conn)
    await seed.readings(conn, (0, 90))
    await evaluate(conn)
    a_pass, person = await asyncpg.connect(database_url), await asyncpg.connect(database_url)
    async with a_pass.transaction():
        await a_pass.execute("select evaluator._lock_lanes('acme')")
        close = "select evaluator.close_alerts('acme', array(select alert_id from alerts), 'x', 'ann', null)"
        closing = asyncio.create_task(person.fetchval(close))

        async def waits_or_is_done() -> bool:
            query = "select exists (select from pg_locks where pid = $1 and not granted)"
            return bool(closing.done() or await conn.fetchval(query, person.get_server_pid()))

        await until(waits_or_is_done)
        assert not closing.done()
    assert await closing == 1
    for connection in (a_pass, person):
        await connection.close()


async def test_tenants_take_turns_from_the_last_one_on(conn: asyncpg.Connection) -> None:
    for tenant_id in ("a", "b", "c"):
        await seed.device(conn, tenant_id=tenant_id)
        await seed.readings(conn, (0, 90), tenant_id=tenant_id)
    for after, expected in (("", ["a", "b"]), ("a", ["b", "c"]), ("b", ["c", "a"]), ("c", ["a", "b"])):
        assert await conn.fetchval("select evaluator.waiting_tenants($1, '{}', 2)", after) == expected


async def test_cost_follows_new_readings_not_the_fleet(
    conn: asyncpg.Connection,
) -> None:
    """With 20,000 quiet devices, a pass over ten readings reads about ten devices' rows; an idle one reads none."""
    await seed.tenant(conn)
    await conn.execute(
        "insert into devices (tenant_id, device_id, name, tags)"
        " select 'acme', 'd' || n, 'd' || n, '{all}' from generate_series(1, 20000) n"
    )
    await conn.execute(
        "insert into telemetry (tenant_id, timestamp, device_id, metric, value)"
        " select 'acme', $1::timestamptz - interval '1 hour', 'd' || n, 'temperature', 20"
        " from generate_series(1, 20000) n",
        seed.NOON,
    )
    await seed.rule(conn, tag="all")
    await conn.execute("analyze")
    await seed.readings(conn, *[(0, 90, f"d{number}") for number in range(1, 11)])
    tables = ("devices", "telemetry_default", "rule_state", "alerts")

    before = await rows_read(conn, tables)
    assert await evaluate(conn) == 10
    after = await rows_read(conn, tables)
    assert await evaluate(conn) == 0
    idle = await rows_read(conn, tables)

    assert all(after[table] - before[table] <= 200 for table in tables), (before, after)
    assert idle["telemetry_default"] == after["telemetry_default"]
    assert idle["devices"] == after["devices"]


@pytest.mark.parametrize("change", ["delete from devices", "update devices set enabled = false"])
async def test_a_device_that_is_gone_opens_nothing(conn: asyncpg.Connection, change: str) -> None:
    """A reading that waited while its device was disabled or deleted is consumed and opens no alert."""
    await seed.device(conn)
    await seed.rule(conn)
    await seed.readings(conn, (0, 90))
    await conn.execute(change)
    assert await evaluate(conn) == 1
    assert await story(conn) == []


async def test_a_rule_for_every_device_costs_no_other_tenant(conn: asyncpg.Connection) -> None:
    """A pass reads the rules of the devices that reported, not every rule of their tenant."""
    await seed.tenant(conn)
    await conn.execute(
        "insert into devices (tenant_id, device_id, name)"
        " select 'acme', 'd' || n, 'd' || n from generate_series(1, 3000) n"
    )
    await conn.execute(
        "insert into alert_rules (tenant_id, name, metric, operator, threshold, device_id)"
        " select 'acme', 'r' || n, 'temperature', '>', 80, 'd' || n from generate_series(1, 3000) n"
    )
    await conn.execute("analyze alert_rules")
    await seed.readings(conn, *[(second, 90 if second == 7 else 20, f"d{second}") for second in range(1, 2001)])
    before = await rows_read(conn, ("alert_rules",))
    assert await evaluate(conn) == 2000
    after = await rows_read(conn, ("alert_rules",))
    # A pass may build a hash of the rules, so it may read all rules a few times, but not for each reading (6,000,000).
    assert after["alert_rules"] - before["alert_rules"] < 40_000
    assert await story(conn) == [("opened", 7)]


async def test_a_fleet_that_breaches_at_once_costs_in_proportion(conn: asyncpg.Connection) -> None:
    """Six times the alerts take about six times as long, not thirty-six times."""
    await seed.tenant(conn)
    await conn.execute(
        "insert into devices (tenant_id, device_id, name)"
        " select 'acme', 'd' || n, 'd' || n from generate_series(1, 3500) n"
    )
    await seed.rule(conn)
    seconds = []
    for first, last in ((0, 500), (500, 3500)):
        await seed.readings(conn, *[(0, 90, f"d{number + 1}") for number in range(first, last)])
        before = time.perf_counter()
        assert await evaluate(conn) == last - first
        seconds.append(time.perf_counter() - before)
    assert await conn.fetchval("select count(*) from alerts where status = 'open'") == 3500
    assert seconds[1] < 18 * seconds[0]
