"""Delivery slots, shared by tenant and then by channel, and probing of hanging receivers."""

import asyncio
import functools
import random
from collections import Counter
from collections.abc import Awaitable, Callable

import asyncpg
import pytest

from services.shared.worker import Loop
from tests.support import seed
from tests.support.connections import connections
from tests.support.delivery import alert, claim, finish, ids, job, make_due, states
from tests.support.delivery_pauses import acting, shown
from tests.support.delivery_process import SECRET, Start, claiming
from tests.support.receiver import Receiver
from tests.support.wait import until

HANGS_MS = 10_000.0
FEW = "select * from delivery.claim('w1', $1, 30, 8, 8)"
"""A claim as a worker makes it, with the number of its free slots."""


async def crowd(conn: asyncpg.Connection, tenant_id: str, *, channels: int, jobs: int = 1) -> list[int]:
    """Channels of a tenant with due jobs each; the channels."""
    made = []
    for number in range(channels):
        channel = await seed.channel(conn, f"c{number}", tenant_id=tenant_id)
        made.append(channel)
        for _ in range(jobs):
            await job(conn, channel, tenant_id=tenant_id)
    return made


async def held(conn: asyncpg.Connection) -> dict[tuple[str, str], int]:
    """Leased jobs by worker and tenant."""
    rows = await conn.fetch(
        "select leased_by, tenant_id, count(*) as jobs from notification_jobs where state = 'leased' group by 1, 2"
    )
    return {(row["leased_by"], row["tenant_id"]): row["jobs"] for row in rows}


async def hang(conn: asyncpg.Connection, rows: list[asyncpg.Record], outcome: str = "unknown") -> None:
    """Record attempts that reached their deadline."""
    await conn.execute(
        "select delivery.finish($1, $2, $3, $4, '{}', $5, '{}', $6, '{}')",
        [row["tenant_id"] for row in rows],
        ids(rows),
        [row["lease_epoch"] for row in rows],
        [outcome] * len(rows),
        ["no answer within 10 s"] * len(rows),
        [HANGS_MS] * len(rows),
    )


async def lane(conn: asyncpg.Connection) -> asyncpg.Record | None:
    """Return the only channel's lane, with its pause in seconds from now."""
    return await conn.fetchrow(
        "select extract(epoch from paused_until - now())::float8 as seconds, hangs, limits from delivery.lanes"
    )


async def test_a_tenant_gets_half_of_the_slots_of_each_worker(conn: asyncpg.Connection) -> None:
    """The share is independent of the number of channels and the order of jobs, and holds for each worker."""
    await crowd(conn, "evil", channels=80, jobs=3)
    quiet = await seed.channel(conn, tenant_id="quiet")
    for worker in ("w1", "w2"):
        assert len(await claim(conn, 64, worker=worker, channel_limit=8)) == 32
        assert await claim(conn, 32, worker=worker, channel_limit=8) == []
    assert await held(conn) == {("w1", "evil"): 32, ("w2", "evil"): 32}
    # Another tenant's jobs get slots at once, at every worker.
    for worker in ("w1", "w2"):
        number = await job(conn, quiet, tenant_id="quiet")
        assert ids(await claim(conn, 32, worker=worker, channel_limit=8)) == [number]


async def test_a_claim_leases_a_few_jobs_at_a_time(conn: asyncpg.Connection) -> None:
    """Another tenant's job waits for a few claims instead of as many as there are slots."""
    await crowd(conn, "evil", channels=80, jobs=3)
    quiet = await seed.channel(conn, tenant_id="quiet")
    assert len(await conn.fetch(FEW, 64)) == 8
    number = await job(conn, quiet, tenant_id="quiet")
    rows = await conn.fetch(FEW, 56)
    assert (len(rows), number in ids(rows)) == (8, True)
    for free in (48, 40, 32):
        await conn.fetch(FEW, free)
    assert await held(conn) == {("w1", "evil"): 32, ("w1", "quiet"): 1}


async def test_a_locked_channel_holds_up_no_other_tenant(conn: asyncpg.Connection, database_url: str) -> None:
    """A session that holds a channel's lock delays its jobs only, even if they would fill a claim."""
    (held_up,) = await crowd(conn, "evil", channels=1, jobs=9)
    number = await job(conn, await seed.channel(conn, tenant_id="quiet"), tenant_id="quiet")
    async with connections(database_url) as connect:
        other = await connect()
        async with other.transaction():
            await other.execute("select from notification_channels where channel_id = $1 for update", held_up)
            assert ids(await conn.fetch(FEW, 64)) == [number]


@pytest.mark.parametrize("fate", ["channel_disabled", "superseded"])
async def test_jobs_that_are_given_up_delay_no_other_tenant(conn: asyncpg.Connection, fate: str) -> None:
    """Given up jobs do not count towards the few jobs of a claim, and never come before those that can go."""
    channel = await seed.channel(conn, tenant_id="evil", enabled=fate != "channel_disabled")
    for _ in range(8):
        trouble = await alert(conn, tenant_id="evil")
        await job(conn, channel, tenant_id="evil", alert_id=trouble)
        if fate == "superseded":
            await conn.execute("update notification_jobs set state = 'dead', finished_at = now() where kind = 'opened'")
            await job(conn, channel, tenant_id="evil", alert_id=trouble, kind="closed")
    number = await job(conn, await seed.channel(conn, tenant_id="quiet"), tenant_id="quiet")
    assert ids(await conn.fetch(FEW, 64)) == [number]
    found = await states(conn)
    assert found.pop(number) == "leased"
    assert set(found.values()) == {"dead"}


async def test_no_order_of_claims_and_ends_gives_a_tenant_more(conn: asyncpg.Connection) -> None:
    """Three tenants and two workers with random ends: at most half each, and no idle slot that a tenant may use."""
    seconds = random.Random(11)  # a repeatable choice
    slots = 9
    for tenant in ("evil", "big", "small"):
        await crowd(conn, tenant, channels={"evil": 12, "big": 4, "small": 1}[tenant], jobs=6)
    in_hand: dict[str, list[asyncpg.Record]] = {"w1": [], "w2": []}
    while set((await states(conn)).values()) != {"delivered"}:
        worker = seconds.choice(["w1", "w2"])
        mine = in_hand[worker]
        while free := slots - len(mine):
            rows = await claim(conn, free, worker=worker, channel_limit=3)
            mine += rows
            if not rows:
                break
        count = Counter(row["tenant_id"] for row in mine)
        assert max(count.values(), default=0) <= slots // 2
        seconds.shuffle(mine)
        done = [mine.pop() for _ in range(seconds.randint(0, len(mine)))]
        await finish(conn, done)


async def test_the_tenant_with_the_fewest_jobs_in_hand_goes_first(conn: asyncpg.Connection) -> None:
    """One free slot goes to the newcomer. Several are divided by tenant, then by channel."""
    await crowd(conn, "evil", channels=20, jobs=2)
    await claim(conn, 2, channel_limit=8)
    first, second = await crowd(conn, "acme", channels=2, jobs=5)
    (row,) = await claim(conn, 1, channel_limit=8)
    assert row["tenant_id"] == "acme"
    rows = await claim(conn, 8, channel_limit=8)
    # Each tenant may hold five of the eleven slots. Before, acme held one and evil two.
    assert Counter(row["tenant_id"] for row in rows) == {"acme": 4, "evil": 3}
    assert Counter(row["channel_id"] for row in rows if row["tenant_id"] == "acme") == {first: 2, second: 2}


async def test_the_only_tenant_with_channels_has_all_slots(conn: asyncpg.Connection) -> None:
    """The reserve applies only if another tenant has a channel, from the next claim on."""
    await crowd(conn, "acme", channels=20)
    await seed.tenant(conn, "other")
    assert len(await claim(conn, 8)) == 8
    await seed.channel(conn, tenant_id="other")
    assert await claim(conn, 8) == []
    assert len(await claim(conn, 8, worker="w2")) == 4


async def test_a_slot_is_not_spent_on_what_cannot_go(conn: asyncpg.Connection) -> None:
    """A tenant whose jobs all wait for an earlier one takes no slot and no share."""
    for number in range(20):
        channel = await seed.channel(conn, f"c{number}", tenant_id="evil")
        trouble = await alert(conn, tenant_id="evil")
        await job(conn, channel, tenant_id="evil", alert_id=trouble)
        await conn.execute("update notification_jobs set run_at = now() + interval '1 hour' where tenant_id = 'evil'")
        await job(conn, channel, tenant_id="evil", alert_id=trouble, kind="acknowledged")
    await conn.execute("update notification_jobs set run_at = now() - interval '1 hour' where kind = 'acknowledged'")
    number = await job(conn, await seed.channel(conn))
    assert ids(await claim(conn, 1)) == [number]


async def test_jobs_that_are_given_up_take_no_slot(conn: asyncpg.Connection) -> None:
    """A tenant at its limit still discards the jobs of a disabled channel."""
    await crowd(conn, "evil", channels=4, jobs=2)
    off = await seed.channel(conn, "off", tenant_id="evil", enabled=False)
    await seed.channel(conn)
    rows = await claim(conn, 4)
    assert len(rows) == 2
    doomed = await job(conn, off, tenant_id="evil")
    assert await claim(conn, 2) == []
    assert (await states(conn))[doomed] == "dead"


# Receivers that hang


@pytest.mark.parametrize("outcome", ["unknown", "retry"])
async def test_a_receiver_that_hangs_is_paused_and_probed(conn: asyncpg.Connection, outcome: str) -> None:
    """The pause starts after three consecutive deadlines. Then one request per pause, a minute at most."""
    channel = await seed.channel(conn)
    for _ in range(30):
        await job(conn, channel, max_attempts=50)
    for hangs in (1, 2):
        await hang(conn, await claim(conn, 1), outcome)
        found = await lane(conn)
        assert found is not None
        assert (found["hangs"], found["limits"], found["seconds"] <= 0) == (hangs, 0, True)
        # The reaper keeps the count.
        await conn.fetchval("select delivery.reap(10)")
    await hang(conn, await claim(conn, 4, channel_limit=8), outcome)
    for _ in range(8):
        assert await claim(conn) == []
        found = await lane(conn)
        assert found is not None
        assert 0 < found["seconds"] <= 90
        view = await shown(conn, "channels")
        assert view["paused_because"] == "no answer within 10 s"
        await make_due(conn)
        probe = await claim(conn)
        assert len(probe) == 1
        assert await claim(conn) == []
        await hang(conn, probe, outcome)
    await make_due(conn)
    await finish(conn, await claim(conn))
    assert len(await claim(conn)) == 1
    found = await lane(conn)
    assert found is not None
    assert (found["hangs"], found["limits"]) == (0, 1)


@pytest.mark.parametrize("answer", ["delivered", "retry", "refused", "limited"])
async def test_an_answer_in_time_ends_the_count(conn: asyncpg.Connection, answer: str) -> None:
    """A receiver that hangs occasionally is not paused. A quick error counts as an answer."""
    channel = await seed.channel(conn)
    for _ in range(8):
        await job(conn, channel)
    for _ in range(2):
        await hang(conn, await claim(conn, 2))
        await finish(
            conn, await claim(conn, 1), answer, status=500, retry_after=0.0001 if answer == "limited" else None
        )
        found = await lane(conn)
        assert found is not None
        assert found["hangs"] == 0
        await make_due(conn)


async def test_one_that_hangs_pauses_its_own_channel_only(conn: asyncpg.Connection) -> None:
    """The tenant's other channels and other tenants go on."""
    slow, other = await crowd(conn, "acme", channels=2, jobs=4)
    await crowd(conn, "else", channels=1)
    rows = await claim(conn, 64, channel_limit=3)
    await hang(conn, [row for row in rows if row["channel_id"] == slow])
    await finish(conn, [row for row in rows if row["channel_id"] != slow])
    await make_paused_jobs_due(conn)
    assert {row["channel_id"] for row in await claim(conn)} == {other}


async def make_paused_jobs_due(conn: asyncpg.Connection) -> None:
    """Let back-offs be over, and no pause."""
    await conn.execute("update notification_jobs set run_at = now() - interval '1 second' where state = 'pending'")


async def test_answers_that_drip_are_taken_one_at_a_time(conn: asyncpg.Connection) -> None:
    """Deliveries that reach the deadline do not pause the channel. It has one slot until an answer is in time."""
    channel = await seed.channel(conn)
    for _ in range(20):
        await job(conn, channel)
    await hang(conn, await claim(conn, 8, channel_limit=8), "delivered")
    for _ in range(3):
        rows = await claim(conn, 8, channel_limit=8)
        assert len(rows) == 1
        await hang(conn, rows, "delivered")
    await finish(conn, await claim(conn, 8, channel_limit=8))
    widths = []
    while rows := await claim(conn, 8, channel_limit=8):
        widths.append(len(rows))
        await finish(conn, rows)
    assert widths == [1, 2, 4, 1]


@pytest.mark.parametrize("how", ["resume", "enable"])
async def test_a_person_ends_the_pause_of_a_receiver_that_hung(conn: asyncpg.Connection, how: str) -> None:
    """All waiting jobs are due. Late answers to earlier requests do not pause it again."""
    channel = await seed.channel(conn)
    for _ in range(9):
        await job(conn, channel)
    rows = await claim(conn, 9, channel_limit=9)
    await hang(conn, rows[:3])
    assert await claim(conn) == []
    if how == "resume":
        await acting(conn, "select delivery.resume_channel($1)", channel)
    else:
        for value in ("false", "true"):
            await acting(conn, f"select delivery.update_channel($1, '{{\"enabled\": {value}}}')", channel)
    await hang(conn, rows[3:])
    found = await lane(conn)
    assert found is not None
    assert (found["hangs"], found["limits"]) == (0, 0)
    assert found["seconds"] <= 0
    assert len(await claim(conn)) >= 3


# The worker


async def channels_to(conn: asyncpg.Connection, receiver: Receiver, tenant_id: str, count: int) -> list[int]:
    """Webhook channels to the receiver."""
    config = f'{{"url": "{receiver.url}/in/hush-hush-hush", "secret": "{SECRET}"}}'
    return [await seed.channel(conn, f"c{number}", tenant_id=tenant_id, config=config) for number in range(count)]


async def test_a_tenant_whose_receivers_hang_delays_no_other(conn: asyncpg.Connection, start: Start) -> None:
    """Half of the slots still hang when the other tenant's requests have been answered."""
    async with Receiver() as hanging, Receiver() as healthy:
        hanging.hold.clear()
        for channel in await channels_to(conn, hanging, "evil", 12):
            for _ in range(2):
                await job(conn, channel, tenant_id="evil")
        (quiet,) = await channels_to(conn, healthy, "quiet", 1)
        workers = [await start(delivery_concurrency=6) for _ in range(2)]
        async with claiming(*workers):
            # The workers of a test share one process and name, so they count as one worker with more slots.
            await until(lambda: len(hanging.requests) >= 3)
            numbers = [await job(conn, quiet, tenant_id="quiet") for _ in range(20)]
            await until(lambda: delivered(conn, numbers))
            assert await conn.fetchval("select count(*) from notification_jobs where state = 'leased'") <= 6
            assert hanging.at_once <= 6
            hanging.hold.set()
            await until(lambda: delivered(conn, list(range(1, 25 + 20))))


async def delivered(conn: asyncpg.Connection, numbers: list[int]) -> bool:
    """Return whether these jobs, as far as they exist, were delivered."""
    query = "select bool_and(state = 'delivered') from notification_jobs where job_id = any ($1)"
    return bool(await conn.fetchval(query, numbers))


async def test_a_tenant_at_its_limit_goes_on_as_its_own_slots_become_free(
    conn: asyncpg.Connection,
    start: Start,
) -> None:
    """Without a notification or poll, the end of one request makes room for the tenant's next channel."""
    async with Receiver() as receiver:
        channels = await channels_to(conn, receiver, "acme", 6)
        await seed.channel(conn, tenant_id="other")
        for channel in channels:
            await job(conn, channel)
        worker = await start(delivery_concurrency=2)
        assert isinstance(worker.claim_loop, Loop)
        woken = worker.claim_loop.wake
        assert woken is not None
        for _ in channels:
            woken.clear()
            assert await worker.claim() == 1
            await asyncio.wait_for(woken.wait(), 30)
        assert set((await states(conn)).values()) == {"delivered"}
        assert receiver.at_once == 1


async def test_the_worker_pauses_a_receiver_that_hangs(conn: asyncpg.Connection, start: Start) -> None:
    """The deadline covers name resolution and the handshake."""
    async with Receiver() as hanging:
        hanging.hold.clear()
        (channel,) = await channels_to(conn, hanging, "acme", 1)
        for _ in range(10):
            await job(conn, channel)
        worker = await start(delivery_timeout_seconds=0.2, delivery_channel_concurrency=3)
        assert await worker.claim() == 3

        async def paused() -> bool:
            found = await lane(conn)
            return found is not None and found["seconds"] > 0 and found["hangs"] == 3

        await until(paused)
        assert await worker.claim() == 0
        assert len(hanging.requests) == 3


async def test_answers_in_time_never_count_as_hanging(conn: asyncpg.Connection, start: Start) -> None:
    """Three failures in a row pause nothing if each came long before the deadline."""
    async with Receiver() as receiver:
        receiver.default = 500
        (channel,) = await channels_to(conn, receiver, "acme", 1)
        for _ in range(3):
            await job(conn, channel)
        worker = await start(delivery_timeout_seconds=100, delivery_lease_seconds=300)
        assert await worker.claim() == 3
        await until(lambda: conn.fetchval("select count(*) = 3 from delivery_attempts"))
    assert await conn.fetch("select from delivery.lanes") == []


async def test_answers_that_stop_half_way_end_at_the_deadline(
    conn: asyncpg.Connection,
    start: Start,
) -> None:
    """A received status counts, a missing one is unknown. Each attempt counts as hanging."""

    def stops_after(written: bytes) -> Callable[[asyncio.StreamWriter], Awaitable[None]]:
        async def answer(writer: asyncio.StreamWriter) -> None:
            writer.write(written)
            await writer.drain()
            await asyncio.Event().wait()

        return answer

    status = b"HTTP/1.1 200 OK\r\n"
    drip, drip_headers = stops_after(status + b"content-length: 9\r\n\r\nx"), stops_after(status + b"x: x")
    for answer, outcome in ((drip, "delivered"), (drip_headers, "unknown")):
        async with Receiver() as receiver:
            receiver.default = answer
            (channel,) = await channels_to(conn, receiver, outcome, 1)
            await job(conn, channel, tenant_id=outcome)
            worker = await start(delivery_timeout_seconds=0.3)
            assert await worker.claim() == 1
            query = "select outcome from delivery_attempts where tenant_id = $1"
            await until(functools.partial(conn.fetchval, query, outcome))
            assert await conn.fetchval(query, outcome) == outcome
    lanes = await conn.fetch("select tenant_id, hangs, limits from delivery.lanes order by 1")
    assert [tuple(row) for row in lanes] == [("delivered", 0, 1), ("unknown", 1, 0)]
