"""Selection and order of jobs by delivery.claim, and jobs that it declares dead."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support import seed
from tests.support.connections import connections, is_blocked
from tests.support.delivery import alert, claim, expire_leases, finish, ids, job, make_due, states
from tests.support.wait import until


async def test_a_claimed_job_comes_with_all_that_sending_needs(conn: asyncpg.Connection) -> None:
    channel = await seed.channel(conn, config='{"url": "https://a.example", "secret": "s"}')
    number = await job(conn, channel)
    (row,) = await claim(conn, worker="host:1")
    assert (row["job_id"], row["lease_epoch"], row["attempts"], row["max_attempts"]) == (number, 1, 1, 8)
    assert (row["channel_id"], row["channel_name"], row["channel_kind"]) == (channel, "sink", "webhook")
    assert row["config"] == '{"url": "https://a.example", "secret": "s"}'
    assert (row["kind"], row["trace_id"]) == ("opened", "a" * 32)
    stored = await conn.fetchrow(
        "select state, leased_by, lease_until - now() between '29 s' and '30 s' as lease_is_right, idempotency_key,"
        " payload from notification_jobs"
    )
    assert tuple(stored)[:3] == ("leased", "host:1", True)
    assert (row["idempotency_key"], row["payload"]) == (stored["idempotency_key"], stored["payload"])
    assert await claim(conn) == []


async def dead_reason(conn: asyncpg.Connection, number: int) -> str | None:
    """Return why the job was given up, or None if it was not."""
    query = "select dead_reason from notification_jobs where job_id = $1 and state = 'dead'"
    reason: str | None = await conn.fetchval(query, number)
    return reason


async def test_what_is_not_due_stays(conn: asyncpg.Connection) -> None:
    """A retry is claimed when its time has come."""
    channel = await seed.channel(conn)
    number = await job(conn, channel)
    await conn.execute("update notification_jobs set run_at = now() + interval '1 minute'")
    assert await claim(conn) == []
    await make_due(conn)
    assert ids(await claim(conn)) == [number]


async def test_only_the_oldest_live_job_of_an_alert_and_channel_goes(conn: asyncpg.Connection) -> None:
    """The closing notification waits until the opening one is delivered, including its retries."""
    channel, other = await seed.channel(conn), await seed.channel(conn, "other")
    trouble = await alert(conn)
    opened = await job(conn, channel, alert_id=trouble)
    closed = await job(conn, channel, alert_id=trouble, kind="closed")
    closed_elsewhere = await job(conn, other, alert_id=trouble, kind="closed")
    first = await claim(conn)
    assert set(ids(first)) == {opened, closed_elsewhere}
    assert await claim(conn) == []
    held = [row for row in first if row["job_id"] == opened]
    assert await finish(conn, held, "retry") == {opened: "pending"}
    assert await claim(conn) == []
    await make_due(conn)
    second = await claim(conn)
    assert ids(second) == [opened]
    await finish(conn, second)
    assert ids(await claim(conn)) == [closed]


@pytest.mark.parametrize("kind", ["acknowledged", "closed"])
@pytest.mark.parametrize("death", ["refused", "gone", "exhausted", "limited", "disabled"])
async def test_an_end_does_not_follow_a_beginning_that_never_arrived(
    conn: asyncpg.Connection, kind: str, death: str
) -> None:
    """The cause of the job's death and other channels' deliveries do not matter."""
    channel, other = await seed.channel(conn), await seed.channel(conn, "other")
    trouble = await alert(conn)
    opened = await job(conn, channel, alert_id=trouble, max_attempts=1)
    elsewhere = await job(conn, other, alert_id=trouble)
    later = 0
    if death == "disabled":
        await conn.execute("update notification_channels set enabled = false where channel_id = $1", channel)
    else:
        later = await job(conn, channel, alert_id=trouble, kind=kind)
    rows = {row["job_id"]: row for row in await claim(conn)}
    await finish(conn, [rows[elsewhere]])
    match death:
        case "disabled":
            assert opened not in rows
        case "exhausted":
            await finish(conn, [rows[opened]], "retry")
        case "limited":
            await conn.execute("update notification_jobs set created_at = now() - interval '2 days'")
            await finish(conn, [rows[opened]], "limited")
        case _:
            await finish(conn, [rows[opened]], death)
    await conn.execute("update notification_channels set enabled = true")
    later = later or await job(conn, channel, alert_id=trouble, kind=kind)
    later_elsewhere = await job(conn, other, alert_id=trouble, kind=kind)
    await make_due(conn)
    assert await dead_reason(conn, opened) == {"disabled": "channel_disabled"}.get(death, death)
    assert ids(await claim(conn)) == [later_elsewhere]
    assert await claim(conn) == []
    assert await dead_reason(conn, later) == "superseded"
    error = "superseded: the channel never received the beginning of the alert"
    assert await conn.fetchval("select last_error from notification_jobs where job_id = $1", later) == error
    event = "select details->>'reason' from audit_log where event_type = 'delivery.superseded' and entity_id = $1"
    assert await conn.fetchval(event, str(later)) == "superseded"
    assert await conn.fetchval("select count(*) from suppressions") == 0


async def test_an_end_follows_a_beginning_that_may_have_arrived(conn: asyncpg.Connection) -> None:
    """A worker crashed while sending, so the receiver may have an open incident."""
    channel = await seed.channel(conn)
    trouble = await alert(conn)
    await job(conn, channel, alert_id=trouble, max_attempts=1)
    closed = await job(conn, channel, alert_id=trouble, kind="closed")
    await claim(conn)
    await expire_leases(conn)
    assert await conn.fetchval("select delivery.reap(10)") == 1
    assert ids(await claim(conn)) == [closed]


@pytest.mark.parametrize("status", ["acknowledged", "closed"])
async def test_no_escalation_goes_out_after_an_acknowledgement(conn: asyncpg.Connection, status: str) -> None:
    """The escalation waited for its channel and is obsolete after an acknowledgement or a close."""
    channel = await seed.channel(conn)
    trouble = await alert(conn)
    escalated = await job(conn, channel, alert_id=trouble, kind="escalated")
    later = await job(conn, channel, alert_id=trouble, kind=status)
    await conn.execute(
        "update alerts set status = $1, acknowledged_at = now(), acknowledged_by = 'ann',"
        " closed_at = case when $1 = 'closed' then now() end, close_reason = case when $1 = 'closed' then 'x' end",
        status,
    )
    assert await claim(conn) == []
    assert await claim(conn) == []
    assert [await dead_reason(conn, number) for number in (escalated, later)] == ["superseded"] * 2
    reasons = await conn.fetch("select last_error from notification_jobs order by job_id")
    assert reasons[0]["last_error"] == "superseded: the alert was no longer open"


async def test_one_channel_cannot_take_all_slots(conn: asyncpg.Connection) -> None:
    """Jobs in flight are counted over all workers. Finishing one makes room for one."""
    hanging, healthy = await seed.channel(conn, "hanging"), await seed.channel(conn, "healthy")
    for _ in range(5):
        await job(conn, hanging)
    late = await job(conn, healthy)
    first = await claim(conn, worker="w1", channel_limit=2)
    assert sorted(row["channel_id"] for row in first) == sorted([hanging, hanging, healthy])
    assert late in ids(first)
    assert await claim(conn, worker="w2", channel_limit=2) == []
    await finish(conn, [row for row in first if row["channel_id"] == hanging][:1])
    assert len(await claim(conn, worker="w2", channel_limit=2)) == 1


async def test_a_long_lane_leaves_the_short_ones_their_share(conn: asyncpg.Connection) -> None:
    """With fewer slots than jobs, every channel gets one before any gets a second."""
    crowded = await seed.channel(conn, "crowded")
    for _ in range(20):
        await job(conn, crowded)
    lonely = [await seed.channel(conn, f"lonely {number}") for number in range(3)]
    for channel in lonely:
        await job(conn, channel)
    assert {row["channel_id"] for row in await claim(conn, 4)} == {crowded, *lonely}


async def test_the_least_busy_channel_goes_first(conn: asyncpg.Connection) -> None:
    """A slow receiver's older backlog waits behind channels without a running request."""
    slow, idle = await seed.channel(conn, "slow"), await seed.channel(conn, "idle")
    for _ in range(5):
        await job(conn, slow)
    assert {row["channel_id"] for row in await claim(conn, 2)} == {slow}
    newest = await job(conn, idle)
    assert ids(await claim(conn, 1)) == [newest]


async def test_a_paused_channel_gets_nothing(conn: asyncpg.Connection) -> None:
    """Retry-After pauses the lane: new jobs wait, other channels do not. After the pause one probe is sent."""
    busy, other = await seed.channel(conn, "busy"), await seed.channel(conn, "other")
    asked = await job(conn, busy)
    await finish(conn, await claim(conn), "retry", status=503, retry_after=60)
    made_meanwhile, elsewhere = await job(conn, busy), await job(conn, other)
    assert ids(await claim(conn)) == [elsewhere]
    wait = "select extract(epoch from {} - now()) from {}"
    assert 59 < await conn.fetchval(wait.format("paused_until", "delivery.lanes")) <= 60
    assert await conn.fetchval(wait.format("run_at", f"notification_jobs where job_id = {asked}")) > 59
    await make_due(conn)
    probe = await claim(conn)
    assert ids(probe) == [asked]
    assert await claim(conn) == []
    await finish(conn, probe)
    assert ids(await claim(conn)) == [made_meanwhile]


async def test_jobs_that_cannot_go_take_no_place_in_a_claim(conn: asyncpg.Connection) -> None:
    """With one free slot, neither the job of a paused channel nor one that waits for an earlier one is chosen."""
    paused, channel = await seed.channel(conn, "paused"), await seed.channel(conn)
    await conn.execute("insert into delivery.lanes values ('acme', $1, now() + interval '1 hour')", paused)
    await job(conn, paused)
    trouble = await alert(conn)
    opened = await job(conn, channel, alert_id=trouble)
    await job(conn, channel, alert_id=trouble, kind="acknowledged")
    other = await job(conn, channel)
    assert [ids(await claim(conn, 1)) for _ in range(3)] == [[opened], [other], []]


async def test_a_shorter_pause_does_not_end_a_longer_one(conn: asyncpg.Connection) -> None:
    """If several requests are answered 429, the longest pause counts."""
    channel = await seed.channel(conn)
    for _ in range(2):
        await job(conn, channel)
    one, two = await claim(conn)
    await finish(conn, [one], "retry", retry_after=100)
    await finish(conn, [two], "retry", retry_after=1)
    assert await conn.fetchval("select extract(epoch from paused_until - now()) from delivery.lanes") > 99


async def test_the_longest_wish_of_one_batch_counts(conn: asyncpg.Connection) -> None:
    """Answers that are recorded together pause the channel once."""
    channel = await seed.channel(conn)
    for _ in range(3):
        await job(conn, channel)
    rows = await claim(conn)
    await conn.execute(
        "select delivery.finish($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        ["acme"] * 3,
        ids(rows),
        [row["lease_epoch"] for row in rows],
        ["limited"] * 3,
        [429] * 3,
        ["HTTP 429"] * 3,
        [None] * 3,
        [1.0] * 3,
        [1.0, 100.0, 2.0],
    )
    assert await conn.fetchval("select extract(epoch from paused_until - now()) from delivery.lanes") > 90


@pytest.mark.parametrize(
    ("change", "fate"),
    [
        ("update notification_channels set enabled = false", "channel_disabled"),
        ("delete from notification_channels", "channel_deleted"),
    ],
)
async def test_jobs_of_a_channel_that_is_off_die_with_a_reason(
    conn: asyncpg.Connection, change: str, fate: str
) -> None:
    """Jobs of a disabled channel are never sent. The job and the audit trail record the reason."""
    channel = await seed.channel(conn)
    number = await job(conn, channel)
    await conn.execute(change)
    assert await claim(conn) == []
    dead = await conn.fetchrow(
        "select state, dead_reason, last_error, attempts, finished_at is not null as ended from notification_jobs"
    )
    assert tuple(dead) == ("dead", fate, fate.replace("_", " "), 0, True)
    # Only the job records the decision.
    assert await conn.fetchval("select count(*) from suppressions") == 0
    event = await conn.fetchrow(
        "select event_type, entity_id, details->>'reason', trace_id, severity from audit_log"
        " where category = 'delivery'"
    )
    assert tuple(event) == ("delivery.dead", str(number), fate, "a" * 32, "error")
    assert await conn.fetchval("select count(*) from delivery_attempts") == 0


async def test_a_disabled_channel_delays_no_other(conn: asyncpg.Connection) -> None:
    """Marking its jobs dead does not reduce the number of claimed jobs."""
    off, on = await seed.channel(conn, "off"), await seed.channel(conn, "on")
    buried = [await job(conn, off) for _ in range(6)]
    sent = [await job(conn, on) for _ in range(2)]
    await conn.execute("update notification_channels set enabled = false where name = 'off'")
    claimed: list[int] = []
    for _ in range(6):
        claimed += ids(await claim(conn, 4))
    assert sorted(claimed) == sent
    assert {number for number, state in (await states(conn)).items() if state == "dead"} == set(buried)


async def test_a_lease_that_ran_out_is_not_claimable_before_it_is_reaped(conn: asyncpg.Connection) -> None:
    """The attempt must first be recorded as unknown. Otherwise a crash would leave no trace."""
    channel = await seed.channel(conn)
    await job(conn, channel)
    await claim(conn)
    await expire_leases(conn)
    assert await claim(conn) == []


async def test_two_claimers_never_get_the_same_job(conn: asyncpg.Connection, database_url: str) -> None:
    """The second claimer gets other jobs without waiting for the first one's commit."""
    channels = [await seed.channel(conn, f"c{number}") for number in range(4)]
    numbers = [await job(conn, channel) for channel in channels for _ in range(5)]
    async with connections(database_url) as connect:
        one, two = await connect(), await connect()
        await two.execute("set lock_timeout = '5s'")
        async with one.transaction(), two.transaction():
            first = await claim(one, 4)
            second = await claim(two, 20)
            assert len(first) == 4
            assert not set(ids(first)) & set(ids(second))
        rest = await claim(two, 100)
    assert sorted([*ids(first), *ids(second), *ids(rest)]) == sorted(numbers)


@asynccontextmanager
async def claim_stopped_after_looking(
    conn: asyncpg.Connection, slow: asyncpg.Connection, holder: asyncpg.Connection
) -> AsyncIterator[asyncio.Task[list[asyncpg.Record]]]:
    """Yield a claim with limit 2 that has chosen its jobs and goes on to take them when the block ends."""
    off = await seed.channel(conn, "off", enabled=False)
    await job(conn, off)
    async with holder.transaction():
        await holder.execute("lock table audit_log in share mode")  # burying the job of `off` waits for it
        claiming = asyncio.create_task(claim(slow, channel_limit=2))
        await until(lambda: is_blocked(conn, slow))
        yield claiming
    await claiming


async def test_the_limit_counts_what_was_claimed_meanwhile(conn: asyncpg.Connection, database_url: str) -> None:
    """Another claimer may fill the channel after the selection, so the count is repeated under the lock."""
    channel = await seed.channel(conn)
    for _ in range(6):
        await job(conn, channel)
    last_two = (
        "update notification_jobs set state = 'leased', lease_until = now() + interval '1 minute', leased_by = 'w2'"
        " where job_id in (select job_id from notification_jobs where channel_id = $1 order by job_id desc limit 2)"
    )
    async with connections(database_url) as connect:
        async with claim_stopped_after_looking(conn, await connect(), await connect()) as claiming:
            await conn.execute(last_two, channel)
        assert await claiming == []


@pytest.mark.parametrize(
    "change",
    [
        "insert into delivery.lanes values ('acme', $1, now() + interval '1 hour')",
        "update notification_channels set enabled = false where channel_id = $1",
    ],
)
async def test_a_channel_that_was_stopped_meanwhile_gets_nothing(
    conn: asyncpg.Connection, database_url: str, change: str
) -> None:
    """A pause or a disabled channel counts from its commit on, also for a claim that looked before it."""
    channel = await seed.channel(conn)
    number = await job(conn, channel)
    async with connections(database_url) as connect:
        async with claim_stopped_after_looking(conn, await connect(), await connect()) as claiming:
            await conn.execute("set session_replication_role = replica")  # the audit trail is locked
            await conn.execute(change, channel)
        assert await claiming == []
    assert (await states(conn))[number] == "pending"


async def test_an_older_job_that_was_redriven_meanwhile_goes_first(conn: asyncpg.Connection, database_url: str) -> None:
    """The claim chose the later job while the older one was dead."""
    channel = await seed.channel(conn)
    before, after = await alert(conn), await alert(conn)
    await conn.execute("update alerts set status = 'closed', closed_at = now(), close_reason = 'x'")
    await conn.execute("update alerts set fingerprint = 'rule:1:boiler-1'")
    older = await job(conn, channel, alert_id=before)
    await finish(conn, await claim(conn), "refused")
    later = await job(conn, channel, alert_id=after)
    async with connections(database_url) as connect:
        async with claim_stopped_after_looking(conn, await connect(), await connect()) as claiming:
            # As delivery.redrive does; its own audit event would wait for the locked trail.
            await conn.execute(
                "update notification_jobs set state = 'pending', finished_at = null, dead_reason = null"
                " where job_id = $1",
                older,
            )
        assert await claiming == []
    assert (await states(conn))[later] == "pending"
    assert ids(await claim(conn)) == [older]


async def test_an_end_is_not_given_up_if_its_beginning_arrived_meanwhile(
    conn: asyncpg.Connection, database_url: str
) -> None:
    """The claim chose the end as superseded while its beginning was dead."""
    channel = await seed.channel(conn)
    trouble = await alert(conn)
    opened = await job(conn, channel, alert_id=trouble)
    await finish(conn, await claim(conn), "refused")
    closed = await job(conn, channel, alert_id=trouble, kind="closed")
    async with connections(database_url) as connect:
        async with claim_stopped_after_looking(conn, await connect(), await connect()) as claiming:
            await conn.execute(
                "update notification_jobs set state = 'delivered', dead_reason = null where job_id = $1", opened
            )
        assert await claiming == []
    assert ids(await claim(conn)) == [closed]


async def test_a_channel_another_claims_from_is_left_alone(conn: asyncpg.Connection, database_url: str) -> None:
    """Jobs claimed by an uncommitted transaction are invisible, so the remaining room is unknown."""
    channel = await seed.channel(conn)
    for _ in range(3):
        await job(conn, channel)
    async with connections(database_url) as connect:
        other = await connect()
        async with other.transaction():
            async with claim_stopped_after_looking(conn, await connect(), await connect()) as claiming:
                for _ in range(2):  # such as a redriven job, older than the chosen ones
                    await job(conn, channel, run_at=datetime.now(UTC) - timedelta(hours=1))
                assert len(await claim(other, channel_limit=2)) == 2
            assert await claiming == []


@pytest.mark.parametrize("limit", [1, 3])
async def test_claimers_together_keep_the_channels_limit(
    conn: asyncpg.Connection, database_url: str, limit: int
) -> None:
    """Eight claimers, repeatedly: never more in flight than the limit, and no job is left."""
    channel = await seed.channel(conn)
    for _ in range(40):
        await job(conn, channel)
    seen: list[int] = []
    all_done = asyncio.Event()

    async def work(connection: asyncpg.Connection, name: str) -> None:
        while not all_done.is_set():
            await finish(connection, await claim(connection, 5, worker=name, channel_limit=limit))

    async def watch(connection: asyncpg.Connection) -> None:
        counts = (
            "select count(*) filter (where state = 'leased') as leased,"
            " count(*) filter (where state = 'pending') as pending from notification_jobs"
        )
        while not all_done.is_set():
            row = await connection.fetchrow(counts)
            seen.append(row["leased"])
            if row["leased"] + row["pending"] == 0:
                all_done.set()

    async with connections(database_url) as connect:
        workers = [work(await connect(), f"w{number}") for number in range(8)]
        await asyncio.gather(watch(await connect()), *workers)
    assert 1 <= max(seen) <= limit
    assert set((await states(conn)).values()) == {"delivered"}


async def test_a_limit_is_a_limit_after_the_queue_was_empty(conn: asyncpg.Connection) -> None:
    """With statistics of a nearly empty queue the planner may repeat a LIMIT under SKIP LOCKED."""
    channel = await seed.channel(conn)
    for _ in range(200):
        await job(conn, channel)
    while rows := await claim(conn, 100):
        await finish(conn, rows)
    await conn.execute("delete from delivery_attempts")
    await conn.execute("delete from notification_jobs")
    await job(conn, channel)
    await conn.execute("vacuum analyze notification_jobs")
    for _ in range(40):
        await job(conn, channel)
    naive = conn.transaction()  # the control, which shows the trap in a plain subquery
    await naive.start()
    taken = await conn.execute(
        "update notification_jobs set state = 'leased', lease_until = now(), leased_by = 'naive'"
        " where (tenant_id, job_id) in (select tenant_id, job_id from notification_jobs where state = 'pending'"
        " order by run_at, job_id limit 2 for update skip locked)"
    )
    await naive.rollback()
    assert int(taken.removeprefix("UPDATE ")) > 2
    assert len(await claim(conn, 2)) == 2
    assert list((await states(conn)).values()).count("leased") == 2


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    moves=st.lists(
        st.sampled_from(["open", "close", "claim", "deliver", "retry", "refuse", "crash", "due"]), max_size=40
    )
)
async def test_whatever_happens_the_order_holds(conn: asyncpg.Connection, moves: list[str]) -> None:
    """For each alert and channel, jobs end in their order of creation, one at a time."""
    channel = await conn.fetchval("select channel_id from notification_channels") or await seed.channel(conn)
    trouble = await alert(conn)
    held: list[asyncpg.Record] = []
    for move in [*moves, "due", "claim", "deliver"]:
        match move:
            case "open" | "close":
                await job(conn, channel, alert_id=trouble, kind="opened" if move == "open" else "closed")
            case "claim":
                held += await claim(conn)
            case "due":
                await make_due(conn)
            case "crash":
                await expire_leases(conn)
                await conn.execute("select delivery.reap(100)")
            case _:
                outcome = {"deliver": "delivered", "retry": "retry", "refuse": "refused"}[move]
                await finish(conn, held, outcome)
                held = []
        mine = await conn.fetch(
            "select state, finished_at from notification_jobs where alert_id = $1 order by job_id", trouble
        )
        kinds = "".join({"delivered": "e", "dead": "e", "leased": "l", "pending": "p"}[row["state"]] for row in mine)
        assert kinds == "".join(sorted(kinds, key="elp".index))
        assert kinds.count("l") <= 1
        ends = [row["finished_at"] for row in mine if row["finished_at"]]
        assert ends == sorted(ends)


async def test_a_channel_hears_of_one_rule_and_device_in_order(conn: asyncpg.Connection) -> None:
    """The next alert with the same fingerprint waits for the end of the previous one."""
    channel = await seed.channel(conn)
    before, after = await alert(conn), await alert(conn)
    await conn.execute(
        "update alerts set status = 'closed', closed_at = now(), close_reason = 'resolved' where alert_id = $1", before
    )
    await conn.execute("update alerts set fingerprint = 'rule:1:boiler-1'")
    end = await job(conn, channel, alert_id=before, kind="closed")
    beginning = await job(conn, channel, alert_id=after)

    rows = await claim(conn)
    assert ids(rows) == [end]
    await finish(conn, rows)
    assert ids(await claim(conn)) == [beginning]
