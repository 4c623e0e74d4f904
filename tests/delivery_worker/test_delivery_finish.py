"""delivery.finish, extend, reap and redrive: how attempts end, and the required lease."""

import asyncio

import asyncpg
import pytest

from tests.support import seed
from tests.support.connections import connections, is_blocked
from tests.support.delivery import alert, claim, expire_leases, finish, ids, job, make_due, states
from tests.support.delivery_pauses import listening, redrive
from tests.support.wait import until

EVENTS = "select event_type from audit_log where category = 'delivery' order by timestamp, event_id"


async def events(conn: asyncpg.Connection) -> list[str]:
    """Types of the audit events so far."""
    return [row["event_type"] for row in await conn.fetch(EVENTS)]


async def test_a_delivery_leaves_job_attempt_and_audit_event(conn: asyncpg.Connection) -> None:
    """All three have the same trace id."""
    channel = await seed.channel(conn)
    number = await job(conn, channel)
    rows = await claim(conn, worker="host:1")
    assert await finish(conn, rows, "delivered", status=202) == {number: "delivered"}
    done = await conn.fetchrow(
        "select state, lease_until, leased_by, last_error, finished_at is not null from notification_jobs"
    )
    assert tuple(done) == ("delivered", None, None, None, True)
    attempt = await conn.fetchrow(
        "select job_id, channel_id, attempt, lease_epoch, worker, outcome, status_code, error, duration_ms, trace_id"
        " from delivery_attempts"
    )
    assert tuple(attempt) == (number, channel, 1, 1, "host:1", "delivered", 202, None, 12.5, "a" * 32)
    event = await conn.fetchrow(
        "select tenant_id, event_type, entity_type, entity_id, entity_name, source_service, actor_type, actor_name,"
        " trace_id, duration_ms, severity from audit_log where category = 'delivery'"
    )
    assert tuple(event) == (
        *("acme", "delivery.delivered", "job", str(number), "sink", "delivery_worker", "service", "host:1"),
        *("a" * 32, 12.5, "info"),
    )
    assert await claim(conn) == []


async def test_a_failed_attempt_is_tried_again_later(conn: asyncpg.Connection) -> None:
    """Each wait is longer, with jitter, and the reason is stored."""
    channel = await seed.channel(conn)
    number = await job(conn, channel)
    waits = []
    for attempt in range(1, 5):
        assert await finish(conn, await claim(conn), "retry", status=503, error="HTTP 503") == {number: "pending"}
        waits.append(await conn.fetchval("select extract(epoch from run_at - now())::float8 from notification_jobs"))
        assert await conn.fetchval("select max(attempt) from delivery_attempts") == attempt
        await make_due(conn)
    for wait, middle in zip(waits, (5, 15, 45, 135), strict=True):
        assert middle * 0.49 < wait < middle * 1.51
    assert await conn.fetchval("select last_error from notification_jobs") == "HTTP 503"
    assert await events(conn) == ["delivery.retried"] * 4
    has_time = await conn.fetchval(
        "select details->>'next_attempt_at' is not null from audit_log where category = 'delivery' limit 1"
    )
    assert has_time is True


async def test_backoff_is_jittered_and_bounded(conn: asyncpg.Connection) -> None:
    """A thousand jobs of one outage do not return at the same time, and none waits for days."""
    query = "select delivery._backoff_seconds($1, 5, 1800) as s from generate_series(1, 300)"
    for attempts, middle in ((1, 5), (6, 1215), (8, 1800), (32000, 1800)):
        found = [row["s"] for row in await conn.fetch(query, attempts)]
        assert middle * 0.5 <= min(found) < middle * 0.7
        assert middle * 1.3 < max(found) <= middle * 1.5
        assert len(set(found)) > 250


async def test_retry_after_is_the_least_wait(conn: asyncpg.Connection) -> None:
    """Retry-After applies if it is longer than the back-off."""
    channel = await seed.channel(conn)
    await job(conn, channel)
    await finish(conn, await claim(conn), "retry", retry_after=500)
    assert await conn.fetchval("select run_at - now() > interval '499 s' from notification_jobs")
    await make_due(conn)
    await finish(conn, await claim(conn), "retry", retry_after=1, base=100)
    assert await conn.fetchval("select run_at - now() > interval '100 s' from notification_jobs")


async def test_the_last_attempt_ends_in_the_dead_letters(conn: asyncpg.Connection) -> None:
    """A job is dead after exactly max_attempts and stays dead."""
    channel = await seed.channel(conn)
    number = await job(conn, channel, max_attempts=3)
    found = []
    for _ in range(3):
        found.append((await finish(conn, await claim(conn), "retry", error="HTTP 500"))[number])
        await make_due(conn)
    assert found == ["pending", "pending", "dead"]
    assert await claim(conn) == []
    assert await events(conn) == ["delivery.retried", "delivery.retried", "delivery.dead"]
    assert await conn.fetchval("select message from audit_log where event_type = 'delivery.dead'") == (
        f"opened notification of alert {await conn.fetchval('select alert_id from alerts')} was given up: HTTP 500"
    )


async def test_a_refused_attempt_is_the_last(conn: asyncpg.Connection) -> None:
    """A retry would be refused again."""
    channel = await seed.channel(conn)
    number = await job(conn, channel)
    assert await finish(conn, await claim(conn), "refused", status=400, error="HTTP 400") == {number: "dead"}
    assert await conn.fetchval("select last_error from notification_jobs") == "HTTP 400"


async def test_a_stale_holder_changes_nothing(conn: asyncpg.Connection) -> None:
    """A worker whose lease expired gets no acknowledgement."""
    channel = await seed.channel(conn)
    number = await job(conn, channel)
    stale = await claim(conn, worker="slow")
    await expire_leases(conn)
    assert await conn.fetchval("select delivery.reap(10)") == 1
    assert await finish(conn, stale, "delivered") == {}
    await make_due(conn)
    current = await claim(conn, worker="fresh")
    assert await finish(conn, stale, "refused") == {}
    assert await states(conn) == {number: "leased"}
    assert await finish(conn, current, "delivered") == {number: "delivered"}
    assert await finish(conn, current, "delivered") == {}
    outcomes = await conn.fetch("select worker, outcome from delivery_attempts order by attempt_id")
    assert [tuple(row) for row in outcomes] == [("slow", "unknown"), ("fresh", "delivered")]
    assert await events(conn) == ["delivery.lease_expired", "delivery.delivered"]


async def test_an_expired_lease_not_yet_taken_is_still_its_holders(conn: asyncpg.Connection) -> None:
    """A late result is better than a second delivery."""
    channel = await seed.channel(conn)
    number = await job(conn, channel)
    rows = await claim(conn)
    await expire_leases(conn)
    assert await finish(conn, rows) == {number: "delivered"}
    assert await conn.fetchval("select delivery.reap(10)") == 0


async def test_another_tenants_id_ends_nothing(conn: asyncpg.Connection) -> None:
    """Tenant and job together are the key."""
    channel = await seed.channel(conn)
    number = await job(conn, channel)
    (row,) = await claim(conn)
    assert await finish(conn, [{**row, "tenant_id": "other"}]) == {}
    assert await states(conn) == {number: "leased"}


async def test_later_notifications_wait_with_the_one_that_is_tried_again(conn: asyncpg.Connection) -> None:
    """They are not due, because every claim would have to skip them."""
    channel = await seed.channel(conn)
    trouble = await alert(conn)
    for kind in ("opened", "acknowledged", "closed"):
        await job(conn, channel, alert_id=trouble, kind=kind)
    await job(conn, channel)
    rows = await claim(conn, 1)
    await finish(conn, rows, "retry")
    times = [row["run_at"] for row in await conn.fetch("select run_at from notification_jobs order by job_id")]
    assert times[0] == times[1] == times[2]
    assert times[3] < times[0]


async def test_many_results_at_once_each_get_their_own(conn: asyncpg.Connection) -> None:
    channel = await seed.channel(conn)
    numbers = [await job(conn, channel) for _ in range(3)]
    rows = await claim(conn)
    settled = await conn.fetch(
        "select * from delivery.finish($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        ["acme"] * 3,
        ids(rows),
        [1, 1, 1],
        ["delivered", "retry", "refused"],
        [200, 500, 404],
        [None, "five", "four"],
        [None] * 3,
        [1.0, 2.0, 3.0],
        [None, None, None],
    )
    assert {row["job_id"]: row["state"] for row in settled} == dict(
        zip(numbers, ["delivered", "pending", "dead"], strict=True)
    )
    assert [row["run_at"] is None for row in sorted(settled, key=lambda row: row["job_id"])] == [True, False, True]
    attempts = await conn.fetch("select status_code, error, duration_ms from delivery_attempts order by job_id")
    assert [tuple(row) for row in attempts] == [(200, None, 1.0), (500, "five", 2.0), (404, "four", 3.0)]


async def test_an_end_that_makes_a_job_claimable_wakes_the_workers(conn: asyncpg.Connection, database_url: str) -> None:
    """The next job in order or one of a full channel becomes claimable. Otherwise no notification is sent."""
    channel = await seed.channel(conn)
    trouble = await alert(conn)
    await job(conn, channel, alert_id=trouble)
    await job(conn, channel, alert_id=trouble, kind="closed")
    async with connections(database_url) as connect:
        listener = await connect()
        async with listening(listener) as heard:
            first = await claim(conn)
            await listener.execute("select 1")
            assert heard == []
            await finish(conn, first)
        assert heard == ["pulse_delivery"]
        async with listening(listener) as heard:
            await finish(conn, await claim(conn))
        assert heard == []


async def test_a_full_claim_wakes_the_next_worker(conn: asyncpg.Connection, database_url: str) -> None:
    """A worker that found the lanes locked looks again when they are free."""
    channel = await seed.channel(conn)
    for _ in range(3):
        await job(conn, channel)
    async with connections(database_url) as connect:
        listener = await connect()
        async with listening(listener) as heard:
            await claim(conn, 2)
        assert heard == ["pulse_delivery"]
        async with listening(listener) as heard:
            await claim(conn, 2)
        assert heard == []


async def test_a_claim_that_gives_up_jobs_wakes_the_workers(conn: asyncpg.Connection, database_url: str) -> None:
    """Given up jobs took the places of others in this claim."""
    await job(conn, await seed.channel(conn, enabled=False))
    async with connections(database_url) as connect:
        listener = await connect()
        for wakes in (["pulse_delivery"], []):
            async with listening(listener) as heard:
                assert await claim(conn) == []
            assert heard == wakes


async def test_extend_renews_what_is_still_held(conn: asyncpg.Connection) -> None:
    """A job missing from the answer has lost its lease."""
    channel = await seed.channel(conn)
    for _ in range(2):
        await job(conn, channel)
    kept, lost = await claim(conn)
    await finish(conn, [lost], "retry")
    query = "select e from delivery.extend($1, $2, $3, 600) e"
    rows = await conn.fetch(
        query, ["acme"] * 2, [kept["job_id"], lost["job_id"]], [kept["lease_epoch"], lost["lease_epoch"]]
    )
    assert [row["e"] for row in rows] == [kept["job_id"]]
    assert await conn.fetchval("select max(lease_until) - now() > interval '599 s' from notification_jobs")
    assert await conn.fetch(query, ["acme"], [kept["job_id"]], [kept["lease_epoch"] - 1]) == []


async def test_reaped_jobs_are_tried_again_until_they_are_exhausted(conn: asyncpg.Connection) -> None:
    """Attempts are counted at claim, so a job that kills its worker ends."""
    channel = await seed.channel(conn)
    number = await job(conn, channel, max_attempts=2)
    key = await conn.fetchval("select idempotency_key from notification_jobs")
    for expected in ("pending", "dead"):
        (row,) = await claim(conn)
        assert row["idempotency_key"] == key
        assert await conn.fetchval("select delivery.reap(10)") == 0
        await expire_leases(conn)
        assert await conn.fetchval("select delivery.reap(10)") == 1
        assert await states(conn) == {number: expected}
        await make_due(conn)
    attempts = await conn.fetch("select attempt, outcome, started_at, error from delivery_attempts order by attempt_id")
    assert [tuple(row)[:3] for row in attempts] == [(1, "unknown", None), (2, "unknown", None)]
    assert attempts[0]["error"] == "the worker vanished; whether the request was sent is unknown"
    assert await events(conn) == ["delivery.lease_expired", "delivery.dead"]


async def test_a_lease_ends_at_its_end(conn: asyncpg.Connection) -> None:
    """Not a moment before: its holder may still be sending."""
    await job(conn, await seed.channel(conn))
    await claim(conn)
    async with conn.transaction():  # in which the time stands still
        for left, reaped in (("0.001 seconds", 0), ("0 seconds", 0), ("-0.001 seconds", 1)):
            await conn.execute("update notification_jobs set lease_until = core.now() + $1::text::interval", left)
            assert await conn.fetchval("select delivery.reap(10)") == reaped


async def test_two_reapers_reap_each_lease_once(conn: asyncpg.Connection, database_url: str) -> None:
    """Neither waits for the other."""
    channel = await seed.channel(conn)
    for _ in range(10):
        await job(conn, channel)
    await claim(conn)
    await expire_leases(conn)
    async with connections(database_url) as connect:
        one, two = await connect(), await connect()
        await two.execute("set lock_timeout = '5s'")
        async with one.transaction(), two.transaction():
            assert await one.fetchval("select delivery.reap(4)") == 4
            assert await two.fetchval("select delivery.reap(100)") == 6
    assert await conn.fetchval("select count(*) from delivery_attempts") == 10


async def test_reap_and_finish_do_not_both_win(conn: asyncpg.Connection, database_url: str) -> None:
    """The first transaction decides, and the attempt is recorded once."""
    channel = await seed.channel(conn)
    for _ in range(20):
        await job(conn, channel)
    rows = await claim(conn)
    await expire_leases(conn)
    async with connections(database_url) as connect:
        one, two = await connect(), await connect()
        settled, reaped = await asyncio.gather(finish(one, rows), two.fetchval("select delivery.reap(100)"))
    assert len(settled) + reaped == 20
    assert await conn.fetchval("select count(*) from delivery_attempts") == 20


async def test_reap_forgets_pauses_that_are_over(conn: asyncpg.Connection) -> None:
    """They stay until the channel has recovered or was quiet for an hour."""
    channel = await seed.channel(conn)
    await job(conn, channel)
    await finish(conn, await claim(conn), "retry", retry_after=30)
    for passed, left in ((None, 1), ("1 second", 1), ("2 hours", 0)):
        if passed:
            await conn.execute("update delivery.lanes set paused_until = now() - $1::text::interval", passed)
        await conn.execute("select delivery.reap(1)")
        assert await conn.fetchval("select count(*) from delivery.lanes") == left


async def test_a_dead_job_can_be_redriven(conn: asyncpg.Connection, database_url: str) -> None:
    """A redriven job gets all its attempts and keeps its idempotency key. The audit trail names the actor."""
    channel = await seed.channel(conn)
    number = await job(conn, channel, max_attempts=1)
    (first,) = await claim(conn)
    await finish(conn, [first], "retry", error="HTTP 500")
    async with connections(database_url) as connect:
        listener = await connect()
        async with listening(listener) as heard:
            await redrive(conn, number)
        assert heard == ["pulse_delivery"]
    (row,) = await claim(conn)
    assert (row["attempts"], row["lease_epoch"], row["idempotency_key"]) == (1, 2, first["idempotency_key"])
    assert await finish(conn, [row]) == {number: "delivered"}
    assert [row["attempt"] for row in await conn.fetch("select attempt from delivery_attempts order by 1")] == [1, 2]
    event = await conn.fetchrow(
        "select actor_type, actor_id, entity_id, details->>'last_error', trace_id from audit_log"
        " where event_type = 'delivery.redriven'"
    )
    assert tuple(event) == ("user", "ann", str(number), "HTTP 500", "a" * 32)


@pytest.mark.parametrize("outcome", [None, "delivered", "retry"])
async def test_only_the_dead_are_redriven(conn: asyncpg.Connection, outcome: str | None) -> None:
    """Leased, delivered and pending jobs are refused."""
    channel = await seed.channel(conn)
    number = await job(conn, channel)
    rows = await claim(conn)
    if outcome:
        await finish(conn, rows, outcome)
    with pytest.raises(asyncpg.PostgresError, match="not dead") as refused:
        await redrive(conn, number)
    assert refused.value.sqlstate == "PU409"


async def test_redriving_cannot_reach_other_tenants(conn: asyncpg.Connection) -> None:
    """Other tenants' jobs are not found. Without a tenant nothing can be redriven."""
    channel = await seed.channel(conn)
    number = await job(conn, channel)
    await finish(conn, await claim(conn), "refused")
    with pytest.raises(asyncpg.PostgresError) as refused:
        await redrive(conn, number, tenant_id="other")
    assert refused.value.sqlstate == "PU404"
    with pytest.raises(asyncpg.PostgresError) as refused:
        await conn.execute("select delivery.redrive($1)", number)
    assert refused.value.sqlstate == "PU403"


async def test_a_beginning_is_redriven_with_what_followed_it(conn: asyncpg.Connection) -> None:
    """Otherwise it would open an incident that never closes. An end alone would be superseded."""
    channel = await seed.channel(conn)
    trouble = await alert(conn)
    opened = await job(conn, channel, alert_id=trouble)
    acknowledged = await job(conn, channel, alert_id=trouble, kind="acknowledged")
    closed = await job(conn, channel, alert_id=trouble, kind="closed")
    await finish(conn, await claim(conn), "refused")
    for _ in range(3):
        assert await claim(conn) == []
    assert set((await states(conn)).values()) == {"dead"}
    with pytest.raises(
        asyncpg.PostgresError, match=f"never received the beginning .* job {closed} comes along"
    ) as refused:
        await redrive(conn, closed)
    assert refused.value.sqlstate == "PU409"
    await redrive(conn, opened)
    claimed = []
    while rows := await claim(conn):
        claimed += ids(rows)
        await finish(conn, rows)
    assert claimed == [opened, acknowledged, closed]
    later = (
        "select details->>'with_later_jobs' from audit_log where event_type = 'delivery.redriven' and entity_id = $1"
    )
    assert await conn.fetchval(later, str(opened)) == f"[{acknowledged}, {closed}]"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("update notification_channels set enabled = false", "is disabled: enable it first"),
        ("delete from notification_channels", "is deleted"),
    ],
)
async def test_nothing_is_redriven_into_a_closed_channel(conn: asyncpg.Connection, change: str, message: str) -> None:
    """The job would die again."""
    number = await job(conn, await seed.channel(conn))
    await finish(conn, await claim(conn), "refused")
    await conn.execute(change)
    with pytest.raises(asyncpg.PostgresError, match=message) as refused:
        await redrive(conn, number)
    assert refused.value.sqlstate == "PU409"


async def test_a_renewal_in_flight_does_not_leave_a_job_half_finished(
    conn: asyncpg.Connection, database_url: str
) -> None:
    """A finish that waits for a renewal's lock ends the job that it then finds. The reaper finds nothing."""
    channel = await seed.channel(conn)
    number = await job(conn, channel)
    (row,) = await claim(conn)
    async with connections(database_url) as connect:
        renewing, finishing = await connect(), await connect()
        transaction = renewing.transaction()
        await transaction.start()
        await renewing.fetch("select delivery.extend($1, $2, $3, 30)", ["acme"], [number], [row["lease_epoch"]])
        ending = asyncio.create_task(finish(finishing, [row]))
        await until(lambda: is_blocked(conn, finishing))
        await transaction.commit()
        assert await ending == {number: "delivered"}
    assert await states(conn) == {number: "delivered"}
    await expire_leases(conn)
    assert await conn.fetchval("select delivery.reap(10)") == 0


async def test_a_renewal_waits_for_another_one(conn: asyncpg.Connection, database_url: str) -> None:
    """A lease that is being written is not lost; a worker that heard so would cut off its request."""
    number = await job(conn, await seed.channel(conn))
    await claim(conn)
    renew = "select delivery.extend('{acme}', array[$1::bigint], '{1}', 30)"
    async with connections(database_url) as connect:
        first, second = await connect(), await connect()
        async with first.transaction():
            assert await first.fetchval(renew, number) == number
            renewing = asyncio.create_task(second.fetchval(renew, number))
            await until(lambda: is_blocked(conn, second))
        assert await renewing == number


@pytest.mark.parametrize("later", ["leased", "delivered"])
async def test_what_went_out_later_is_not_overtaken_by_a_redrive(conn: asyncpg.Connection, later: str) -> None:
    """A dead notification stays dead once a later one about the same rule and device was sent."""
    channel = await seed.channel(conn)
    before, after = await alert(conn), await alert(conn)
    await conn.execute(
        "update alerts set status = 'closed', closed_at = now(), close_reason = 'resolved' where alert_id = $1", before
    )
    await conn.execute("update alerts set fingerprint = 'rule:1:boiler-1'")
    end = await job(conn, channel, alert_id=before, kind="closed")
    await finish(conn, await claim(conn), "refused")
    await job(conn, channel, alert_id=after)
    rows = await claim(conn)
    if later == "delivered":
        await finish(conn, rows)
    with pytest.raises(asyncpg.PostgresError, match="a later notification about rule:1:boiler-1") as raised:
        await redrive(conn, end)
    assert raised.value.sqlstate == "PU409"


async def test_a_redrive_waits_for_a_claim_of_the_channel(conn: asyncpg.Connection, database_url: str) -> None:
    """The claim that has not committed may take a later notification about the same rule and device."""
    channel = await seed.channel(conn)
    before, after = await alert(conn), await alert(conn)
    await conn.execute("update alerts set status = 'closed', closed_at = now(), close_reason = 'x'")
    await conn.execute("update alerts set fingerprint = 'rule:1:boiler-1'")
    dead = await job(conn, channel, alert_id=before)
    await finish(conn, await claim(conn), "refused")
    later = await job(conn, channel, alert_id=after)
    async with connections(database_url) as connect:
        claiming, acting = await connect(), await connect()

        async def stopped_or_done() -> bool:
            return redriving.done() or await is_blocked(conn, acting)

        async with claiming.transaction():
            assert ids(await claim(claiming)) == [later]
            redriving = asyncio.create_task(redrive(acting, dead))
            await until(stopped_or_done)
        with pytest.raises(asyncpg.PostgresError, match="a later notification about rule:1:boiler-1"):
            await redriving
    assert await states(conn) == {dead: "dead", later: "leased"}


async def test_reaping_waits_for_no_pause_that_is_being_made(conn: asyncpg.Connection, database_url: str) -> None:
    """Expired pauses are removed in any physical order, except one that a finishing worker holds."""
    first, second = await seed.channel(conn), await seed.channel(conn, "second")
    await conn.execute(
        "insert into delivery.lanes select 'acme', unnest($1::bigint[]), now() - interval '1 s'", [second, first]
    )
    pause = (
        "insert into delivery.lanes as l values ('acme', $1, now() + interval '1 h')"
        " on conflict (tenant_id, channel_id) do update set paused_until = excluded.paused_until"
    )
    async with connections(database_url) as connect:
        finishing, reaper = await connect(), await connect()
        await reaper.execute("set lock_timeout = '5s'")
        async with finishing.transaction():
            await finishing.execute(pause, first)
            assert await reaper.fetchval("select delivery.reap(10)") == 0
            assert [row[0] for row in await conn.fetch("select channel_id from delivery.lanes")] == [first]
            await finishing.execute(pause, second)
        assert await reaper.fetchval("select delivery.reap(10)") == 0
    assert await conn.fetchval("select count(*) from delivery.lanes where paused_until > now()") == 2
