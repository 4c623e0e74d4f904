"""Pauses that receivers request: cost, end and display."""

import asyncio

import asyncpg
import orjson
import pytest

from tests.support import seed
from tests.support.connections import connections, is_blocked
from tests.support.delivery import alert, claim, finish, ids, job, make_due, states
from tests.support.delivery_pauses import acting, listening, redrive, shown
from tests.support.wait import until

SECRET = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz"
NEW_ADDRESS = f'{{"config": {{"url": "https://new.example/hook", "secret": "{SECRET}"}}}}'


async def limited(conn: asyncpg.Connection, channel: int, seconds: float | None = 3600, jobs: int = 2) -> list[int]:
    """Jobs of which one was answered 429."""
    numbers = [await job(conn, channel) for _ in range(jobs)]
    rows = await claim(conn, 1)
    await finish(conn, rows, "limited", status=429, error="HTTP 429: slow down", retry_after=seconds)
    assert await claim(conn) == []
    return numbers


async def test_a_limit_costs_no_attempt_and_no_place(conn: asyncpg.Connection) -> None:
    """The job is claimed first after the pause, with its attempts unchanged."""
    channel = await seed.channel(conn)
    first, second = await limited(conn, channel)
    for _ in range(20):
        await make_due(conn)
        (probe,) = await claim(conn)
        assert (probe["job_id"], probe["attempts"]) == (first, 1)
        await finish(conn, [probe], "limited", status=429, retry_after=1)
    await make_due(conn)
    (probe,) = await claim(conn)
    await finish(conn, [probe])
    assert await conn.fetchval("select attempts from notification_jobs where job_id = $1", first) == 1
    assert ids(await claim(conn)) == [second]
    events = await conn.fetch("select distinct event_type from audit_log where category = 'delivery' order by 1")
    assert [row["event_type"] for row in events] == ["delivery.delivered", "delivery.limited"]


async def test_a_limit_is_bounded_in_time(conn: asyncpg.Connection) -> None:
    """A receiver that limits for a day is treated as unavailable. A redrive restarts the day."""
    channel = await seed.channel(conn)
    (number,) = await limited(conn, channel, jobs=1)
    await conn.execute("update notification_jobs set created_at = now() - interval '25 hours'")
    await make_due(conn)
    assert await finish(conn, await claim(conn), "limited", status=429, error="HTTP 429") == {number: "dead"}
    assert tuple(await conn.fetchrow("select dead_reason, last_error from notification_jobs")) == (
        "limited",
        "HTTP 429",
    )
    await redrive(conn, number)
    assert await finish(conn, await claim(conn), "limited", status=429, retry_after=1) == {number: "pending"}


async def test_pauses_without_a_wish_grow_until_a_delivery(conn: asyncpg.Connection) -> None:
    """Each consecutive pause is longer, a burst of refusals counts once, and the maximum holds."""
    channel = await seed.channel(conn)
    for _ in range(4):
        await job(conn, channel)
    pause = "select extract(epoch from paused_until - paused_at)::float8 from delivery.lanes"
    await finish(conn, await claim(conn), "limited", status=429)
    assert 2 < await conn.fetchval(pause) < 7.6
    for middle in (15, 45, 135):
        await make_due(conn)
        await finish(conn, await claim(conn), "limited", status=429)
        assert middle * 0.45 < await conn.fetchval(pause) < middle * 1.51
    await make_due(conn)
    await finish(conn, await claim(conn))
    await finish(conn, await claim(conn), "limited", status=429)
    assert await conn.fetchval(pause) < 15 * 1.51


@pytest.mark.parametrize("per_window", [1, 5])
async def test_a_receiver_that_takes_few_a_window_gets_few_too_many(conn: asyncpg.Connection, per_window: int) -> None:
    """Many alerts, eight at a time, on a simulated clock: all arrive in order at the first attempt."""
    channel = await seed.channel(conn)
    numbers = [await job(conn, channel) for _ in range(80)]
    delivered: list[int] = []
    refused: list[int] = []
    while len(delivered) < 80:
        room, refused_now = per_window, 0
        while rows := await claim(conn, 64, channel_limit=8):
            taken, turned_away = rows[:room], rows[room:]
            room -= len(taken)
            refused_now += len(turned_away)
            delivered += ids(taken)
            await finish(conn, taken)
            await finish(conn, turned_away, "limited", status=429, retry_after=1)
        refused.append(refused_now)
        await conn.execute("update delivery.lanes set paused_until = now() - interval '1 second'")
    assert delivered == numbers
    assert refused[0] <= 8
    assert max(refused[1:]) <= per_window + 1
    assert await conn.fetchval("select max(attempts) from notification_jobs") == 1


async def test_a_recovered_channel_sends_as_before(conn: asyncpg.Connection) -> None:
    """The window grows by one per delivery. The row is removed after a quiet hour."""
    channel = await seed.channel(conn)
    await limited(conn, channel, jobs=200)
    await make_due(conn)
    widths = []
    while rows := await claim(conn, 64, channel_limit=8):
        widths.append(len(rows))
        await finish(conn, rows)
    assert widths[:6] == [1, 1, 2, 4, 8, 8]
    assert await conn.fetchval("select limits from delivery.lanes") == 0


async def test_an_answer_from_before_the_pause_does_not_end_it(conn: asyncpg.Connection) -> None:
    """One of eight requests in flight is refused. The others' success does not concern the time after it."""
    channel = await seed.channel(conn)
    for _ in range(8):
        await job(conn, channel)
    rows = await claim(conn, channel_limit=8)
    await finish(conn, rows[:1], "limited", status=429, retry_after=60)
    await finish(conn, rows[1:])
    assert await claim(conn) == []
    assert await conn.fetchval("select deliveries from delivery.lanes") == 0


async def enable(conn: asyncpg.Connection, channel: int) -> None:
    """Switch the channel off and on again, with nothing claimed between."""
    await acting(conn, "select delivery.update_channel($1, '{\"enabled\": false}')", channel)
    await acting(conn, "select delivery.update_channel($1, '{\"enabled\": true}')", channel)


@pytest.mark.parametrize("how", ["resume", "address", "enable"])
async def test_a_person_ends_a_pause_at_once(conn: asyncpg.Connection, database_url: str, how: str) -> None:
    """Waiting jobs are due again, including those that back off, and the workers are woken."""
    channel = await seed.channel(conn)
    failed = await job(conn, channel)
    await finish(conn, await claim(conn), "retry", status=500, base=3600)
    numbers = await limited(conn, channel)
    async with connections(database_url) as connect:
        listener = await connect()
        async with listening(listener) as heard:
            match how:
                case "resume":
                    resumed = await acting(conn, "select delivery.resume_channel($1)", channel)
                    assert resumed["paused_until"] is None
                case "address":
                    patch = NEW_ADDRESS
                    await acting(conn, "select delivery.update_channel($1, $2::text::jsonb)", channel, patch)
                case _:
                    await enable(conn, channel)
        assert "pulse_delivery" in heard
    assert sorted(ids(await claim(conn))) == sorted([failed, *numbers])
    if how == "resume":
        event = await conn.fetchrow("select * from audit_log where event_type = 'delivery.resumed'")
        assert (event["actor_id"], event["entity_id"]) == ("ann", str(channel))
        assert orjson.loads(event["details"])["reason"] == "HTTP 429: slow down"


async def test_another_change_of_a_channel_ends_no_pause(conn: asyncpg.Connection) -> None:
    """A new name is not a new receiver."""
    channel = await seed.channel(conn)
    await limited(conn, channel)
    await acting(conn, 'select delivery.update_channel($1, \'{"name": "other"}\')', channel)
    assert await claim(conn) == []


async def test_an_old_address_does_not_pause_or_disable_the_new_one(conn: asyncpg.Connection) -> None:
    """Answers to requests from before the change do not concern the new address."""
    channel = await seed.channel(conn)
    for _ in range(3):
        await job(conn, channel)
    one, two, three = await claim(conn)
    patch = NEW_ADDRESS
    await acting(conn, "select delivery.update_channel($1, $2::text::jsonb)", channel, patch)
    await finish(conn, [one], "limited", status=429, retry_after=3600)
    assert await finish(conn, [two], "gone", status=410) == {two["job_id"]: "pending"}
    await finish(conn, [three], "retry", status=503, retry_after=3600)
    assert await conn.fetchval("select enabled from notification_channels")
    assert ids(await claim(conn)) == [one["job_id"]]


async def test_a_lifted_pause_is_not_renewed_by_older_requests(conn: asyncpg.Connection) -> None:
    """They left before a person said that the receiver is back; the first one had paused the channel."""
    channel = await seed.channel(conn)
    for _ in range(2):
        await job(conn, channel)
    one, two = await claim(conn)
    await finish(conn, [one], "limited", status=429, retry_after=3600)
    await acting(conn, "select delivery.resume_channel($1)", channel)
    await finish(conn, [two], "limited", status=429, retry_after=3600)
    assert ids(await claim(conn)) == ids([one, two])


async def test_a_worker_looks_again_when_a_pause_ends(conn: asyncpg.Connection, database_url: str) -> None:
    """It hears when that is, and no worker is woken before, though another job of the channel is due."""
    channel = await seed.channel(conn)
    for _ in range(2):
        await job(conn, channel)
    (row,) = await claim(conn, 1)
    async with connections(database_url) as connect:
        listener = await connect()
        async with listening(listener) as heard:
            run_at = await conn.fetchval(
                "select run_at from delivery.finish('{acme}', array[$1::bigint], '{1}', '{limited}', '{429}',"
                " '{HTTP 429}', '{null}', '{1}', '{60}')",
                row["job_id"],
            )
        assert heard == []
    assert run_at == await conn.fetchval("select paused_until from delivery.lanes")


async def test_recovering_waits_for_no_other_worker(conn: asyncpg.Connection, database_url: str) -> None:
    """A worker that held other lanes meanwhile could wait in a circle."""
    channel = await seed.channel(conn)
    await limited(conn, channel)
    await make_due(conn)
    (probe,) = await claim(conn)
    async with connections(database_url) as connect:
        pausing, delivering = await connect(), await connect()
        await delivering.execute("set lock_timeout = '5s'")
        async with pausing.transaction():
            await pausing.execute("select from delivery.lanes for update")
            assert await finish(delivering, [probe]) == {probe["job_id"]: "delivered"}


async def test_a_redrive_sends_a_probe(conn: asyncpg.Connection) -> None:
    """The operator may know that the receiver is back. If not, one request finds out."""
    channel = await seed.channel(conn)
    dead = await job(conn, channel)
    await finish(conn, await claim(conn), "refused")
    await limited(conn, channel, jobs=3)
    await redrive(conn, dead)
    assert len(await claim(conn)) == 1


@pytest.mark.parametrize(
    ("state", "message", "code"), [("off", "enable it instead", "PU409"), ("none", "no channel", "PU404")]
)
async def test_what_cannot_be_resumed_says_why(conn: asyncpg.Connection, state: str, message: str, code: str) -> None:
    """A disabled channel and a missing one are refused."""
    channel = await seed.channel(conn, enabled=False)
    with pytest.raises(asyncpg.PostgresError, match=message) as refused:
        await acting(conn, "select delivery.resume_channel($1)", channel if state == "off" else 999)
    assert refused.value.sqlstate == code


async def test_a_pause_shows_in_channel_delivery_and_decision(conn: asyncpg.Connection) -> None:
    """The views show the end of the pause, the receiver's reason, and the channel's last success and error."""
    channel = await seed.channel(conn)
    await job(conn, channel)
    await finish(conn, await claim(conn))
    await limited(conn, channel, jobs=1)
    until = await conn.fetchval("select paused_until from delivery.lanes")
    for view in ("channels", "deliveries"):
        row = await shown(conn, view)
        assert (row["paused_until"], row["paused_because"]) == (until, "HTTP 429: slow down")
    channel_shown = await shown(conn, "channels")
    assert channel_shown["last_error"] == "HTTP 429: slow down"
    assert channel_shown["last_success_at"] < channel_shown["last_error_at"]
    decision = await shown(conn, "decisions")
    assert (decision["decision"], decision["paused_until"]) == ("pending", until)
    await make_due(conn)
    for view in ("channels", "deliveries", "decisions"):
        assert (await shown(conn, view))["paused_until"] is None


async def test_gone_disables_the_channel(conn: asyncpg.Connection) -> None:
    """The channel stores the reason, with an event by the worker. Enabling it removes the reason."""
    channel = await seed.channel(conn)
    number, waiting = await job(conn, channel), await job(conn, channel)
    assert await finish(conn, await claim(conn, 1), "gone", status=410, error="HTTP 410") == {number: "dead"}
    assert await claim(conn) == []
    assert set((await states(conn)).values()) == {"dead"}
    reasons = await conn.fetch("select job_id, dead_reason from notification_jobs order by 1")
    assert [tuple(row) for row in reasons] == [(number, "gone"), (waiting, "channel_disabled")]
    row = await shown(conn, "channels")
    assert (row["enabled"], row["disabled_reason"]) == (False, "HTTP 410")
    events = await conn.fetch(
        "select event_type, actor_id, entity_id from audit_log"
        " where event_type in ('delivery.channel_disabled', 'config.channel_updated')"
    )
    assert {tuple(event) for event in events} == {
        ("delivery.channel_disabled", "delivery_worker", str(channel)),
        ("config.channel_updated", "delivery_worker", str(channel)),
    }
    enabled = await acting(conn, "select delivery.update_channel($1, '{\"enabled\": true}')", channel)
    assert (enabled["enabled"], enabled["disabled_reason"]) == (True, None)
    assert await finish(conn, await claim(conn)) == {}


async def test_gone_waits_for_a_change_of_the_channel(conn: asyncpg.Connection, database_url: str) -> None:
    """It locks the channel before the lane, as a redrive does; in the other order the two would wait for each other."""
    channel = await seed.channel(conn)
    dead = await job(conn, channel)
    await finish(conn, await claim(conn), "refused")
    for _ in range(2):
        await job(conn, channel)
    one, two = await claim(conn)
    await finish(conn, [one], "limited", status=429, retry_after=3600)
    async with connections(database_url) as connect:
        person, worker = await connect(), await connect()
        async with person.transaction():
            await person.execute("select from notification_channels where channel_id = $1 for no key update", channel)
            ending = asyncio.create_task(finish(worker, [two], "gone", status=410, retry_after=1))
            await until(lambda: is_blocked(conn, worker))
            await redrive(person, dead)
        assert await ending == {two["job_id"]: "pending"}


async def test_people_and_workers_at_once_never_deadlock(conn: asyncpg.Connection, database_url: str) -> None:
    """Channels are resumed, changed and redriven while three workers finish with every outcome."""
    channels = [await seed.channel(conn, f"c{number}") for number in range(3)]
    for channel in channels:
        trouble = await alert(conn)
        for number in range(20):
            kind = "opened" if number == 0 else "acknowledged"
            await job(conn, channel, alert_id=trouble if number % 2 else None, kind=kind)
    outcomes = ("delivered", "limited", "retry", "refused", "gone")

    async def work(connection: asyncpg.Connection, name: str) -> None:
        for turn in range(40):
            rows = await claim(connection, 10, worker=name, channel_limit=4)
            for place, outcome in enumerate(outcomes):
                mine = rows[place :: len(outcomes)]
                await finish(connection, mine, outcome, retry_after=0.001 if turn % 2 else None, base=0.001)

    async def act(connection: asyncpg.Connection) -> None:
        for turn in range(40):
            channel = channels[turn % 3]
            await acting(connection, "select delivery.update_channel($1, '{\"enabled\": true}')", channel)
            patch = orjson.dumps({"config": {"url": f"https://a.example/{turn}", "secret": SECRET}}).decode()
            await acting(connection, "select delivery.update_channel($1, $2::text::jsonb)", channel, patch)
            dead = await connection.fetchval("select max(job_id) from notification_jobs where state = 'dead'")
            try:
                await acting(connection, "select delivery.resume_channel($1)", channel)
                await redrive(connection, dead or 0)
            except asyncpg.PostgresError as error:
                assert error.sqlstate in ("PU404", "PU409")  # noqa: PT017  # disabled again, or redriven by the other

    async with connections(database_url) as connect:
        workers = [work(await connect(), f"w{number}") for number in range(3)]
        await asyncio.gather(*workers, act(await connect()), act(await connect()))
    assert await conn.fetchval("select count(*) from notification_jobs where attempts < 0") == 0


async def test_a_paused_channels_jobs_are_not_overdue(conn: asyncpg.Connection) -> None:
    """Jobs of a limited receiver are not overdue either. A minute after the pause they are."""
    channel = await seed.channel(conn)
    await limited(conn, channel)
    await conn.execute("update notification_jobs set run_at = now() - interval '1 hour'")
    due = "select extract(epoch from now() - delivery._due_since(now(), 100))::float8"
    assert await conn.fetchval(due) is None
    await conn.execute("update delivery.lanes set paused_until = now() - interval '7 seconds'")
    assert await conn.fetchval(due) is None
    await conn.execute("update delivery.lanes set paused_until = now() - interval '70 seconds'")
    assert 3600 <= await conn.fetchval(due) < 4000
