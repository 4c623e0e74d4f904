"""Rows touched by claiming, finishing and reaping, under any planner statistics."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import pytest

from tests.support import seed
from tests.support.delivery import claim, finish, job
from tests.support.plans import entries_read

BACKLOG = 20_000


class Touched:
    """Rows of notification_jobs that a transaction read by index or sequentially."""

    rows = 0


@asynccontextmanager
async def counting(conn: asyncpg.Connection) -> AsyncIterator[Touched]:
    """Count within one transaction."""
    query = (
        "select coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0) from pg_stat_xact_user_tables"
        " where relname = 'notification_jobs'"
    )
    touched = Touched()
    async with conn.transaction():
        before = await conn.fetchval(query)
        yield touched
        touched.rows = await conn.fetchval(query) - before


async def backlog(conn: asyncpg.Connection, channel_id: int, *, state: str = "pending", count: int = BACKLOG) -> None:
    """Many jobs of one channel, each of an alert of its own."""
    await conn.execute(
        """
        with a as (
          insert into alerts (tenant_id, fingerprint, rule_name, severity, message, opened_at)
          select 'acme', gen_random_uuid()::text, 'r', 'info', 'm', now() from generate_series(1, $2) returning alert_id
        ), e as (
          insert into alert_events (tenant_id, alert_id, kind, occurred_at, dispatched_at)
          select 'acme', alert_id, 'opened', now(), now() from a returning event_id, alert_id
        )
        insert into notification_jobs (tenant_id, event_id, alert_id, channel_id, kind, payload, state, finished_at)
        select 'acme', event_id, alert_id, $1, 'opened', '{}', $3, case when $3 = 'delivered' then now() end from e
        """,
        channel_id,
        count,
        state,
    )


@pytest.mark.parametrize("analyzed", ["empty", "full"])
async def test_a_claim_costs_what_it_takes(conn: asyncpg.Connection, analyzed: str) -> None:
    """Backlogs of paused and hanging channels and old jobs cost nothing, even with stale statistics."""
    paused, hanging, quiet = [await seed.channel(conn, name) for name in ("paused", "hanging", "quiet")]
    if analyzed == "empty":
        await conn.execute("vacuum analyze notification_jobs")
    for channel in (paused, hanging):
        await backlog(conn, channel)
    await backlog(conn, quiet, state="delivered")
    await conn.execute("insert into delivery.lanes values ('acme', $1, now() + interval '1 hour')", paused)
    assert len(await claim(conn, 8, channel_limit=8)) == 8
    for _ in range(5):
        await job(conn, quiet)
    if analyzed == "full":
        await conn.execute("vacuum analyze notification_jobs")
    for _ in range(7):  # often enough for the generic plans of a long-lived connection
        async with counting(conn) as touched:
            rows = await claim(conn, 5, channel_limit=8)
        assert len(rows) == 5
        assert touched.rows < 100
        async with counting(conn) as touched:
            await finish(conn, rows, "retry")
        assert touched.rows < 100
        await conn.execute(
            "update notification_jobs set run_at = now(), attempts = 0 where channel_id = $1 and state = 'pending'",
            quiet,
        )


@pytest.mark.parametrize("analyzed", ["empty", "full"])
async def test_many_lanes_cost_a_look_up_each(conn: asyncpg.Connection, analyzed: str) -> None:
    """One tenant has 300 channels with jobs, another has one. The cost includes sharing the slots."""
    if analyzed == "empty":
        await conn.execute("vacuum analyze notification_jobs, notification_channels")
    for number in range(300):
        channel = await seed.channel(conn, f"c{number}")
        await backlog(conn, channel, count=10)
    quiet = await seed.channel(conn, tenant_id="quiet")
    if analyzed == "full":
        await conn.execute("vacuum analyze notification_jobs, notification_channels")
    for _ in range(7):
        await job(conn, quiet, tenant_id="quiet")
        async with counting(conn) as touched:
            rows = await claim(conn, 8, channel_limit=8)
        assert [row["tenant_id"] for row in rows].count("quiet") == 1
        assert touched.rows < 300 + 100
        await finish(conn, rows)


@pytest.mark.parametrize("analyzed", ["empty", "full"])
async def test_a_batch_costs_its_size(conn: asyncpg.Connection, analyzed: str) -> None:
    """For a thousand jobs of a long lane, claim and finish touch a few rows each."""
    channel = await seed.channel(conn)
    if analyzed == "empty":
        await conn.execute("vacuum analyze notification_jobs")
    await backlog(conn, channel)
    if analyzed == "full":
        await conn.execute("vacuum analyze notification_jobs")
    for _ in range(7):
        async with counting(conn) as touched:
            rows = await claim(conn, 1000, channel_limit=1000)
        assert len(rows) == 1000
        assert touched.rows < 8_000
        async with counting(conn) as touched:
            assert len(await finish(conn, rows, "delivered")) == 1000
        assert touched.rows < 5_000


@pytest.mark.parametrize("analyzed", ["empty", "full"])
async def test_an_idle_pass_costs_nothing(conn: asyncpg.Connection, analyzed: str) -> None:
    """With no due job and no expired lease, a claim and a reap touch almost no rows."""
    channel = await seed.channel(conn)
    if analyzed == "empty":
        await conn.execute("vacuum analyze notification_jobs")
    await backlog(conn, channel, state="delivered")
    await backlog(conn, channel)
    await conn.execute("update notification_jobs set run_at = now() + interval '1 hour' where state = 'pending'")
    if analyzed == "full":
        await conn.execute("vacuum analyze notification_jobs")
    for _ in range(7):
        async with counting(conn) as touched:
            assert await claim(conn, 100) == []
            assert await conn.fetchval("select delivery.reap(100)") == 0
        assert touched.rows < 10


async def test_jobs_that_wait_for_their_order_are_not_stepped_over(conn: asyncpg.Connection) -> None:
    """If openings wait for a retry, their closings wait with them."""
    channel = await seed.channel(conn)
    await backlog(conn, channel, count=500)
    await conn.execute(
        """
        with e as (
          insert into alert_events (tenant_id, alert_id, kind, occurred_at, dispatched_at)
          select tenant_id, alert_id, 'closed', now(), now() from alerts returning event_id, alert_id
        )
        insert into notification_jobs (tenant_id, event_id, alert_id, channel_id, kind, payload)
        select 'acme', event_id, alert_id, $1, 'closed', '{}' from e
        """,
        channel,
    )
    rows = await claim(conn, 500, channel_limit=500)
    assert {row["kind"] for row in rows} == {"opened"}
    async with counting(conn) as touched:
        await finish(conn, rows, "retry")
    assert touched.rows < 5_000
    async with counting(conn) as touched:
        assert await claim(conn, 500, channel_limit=500) == []
    assert touched.rows < 10


@pytest.mark.parametrize("analyzed", ["empty", "full"])
@pytest.mark.parametrize("arrived", [True, False])
async def test_looking_for_the_beginning_costs_a_look_up(
    conn: asyncpg.Connection, analyzed: str, *, arrived: bool
) -> None:
    """The cost per closing or superseded job is independent of the history."""
    channel = await seed.channel(conn)
    if analyzed == "empty":
        await conn.execute("vacuum analyze notification_jobs")
    await backlog(conn, channel, state="delivered")
    if not arrived:
        await conn.execute("update notification_jobs set state = 'dead', dead_reason = 'refused'")
    await conn.execute(
        """
        with e as (
          insert into alert_events (tenant_id, alert_id, kind, occurred_at, dispatched_at)
          select tenant_id, alert_id, 'closed', now(), now() from alerts order by alert_id desc limit 1000
          returning event_id, alert_id
        )
        insert into notification_jobs (tenant_id, event_id, alert_id, channel_id, kind, payload)
        select 'acme', event_id, alert_id, $1, 'closed', '{}' from e
        """,
        channel,
    )
    if analyzed == "full":
        await conn.execute("vacuum analyze notification_jobs")
    for _ in range(7):
        async with counting(conn) as touched:
            rows = await claim(conn, 100, channel_limit=1000)
        assert len(rows) == (100 if arrived else 0)
        assert touched.rows < 2_000


async def test_a_recovering_lane_costs_no_walk(conn: asyncpg.Connection) -> None:
    """Repeated probes of a long lane touch a few rows each."""
    channel = await seed.channel(conn)
    await backlog(conn, channel)
    await finish(conn, await claim(conn, 1), "limited", retry_after=1)
    for outcome in ("limited", "limited", "delivered"):
        await conn.execute("update delivery.lanes set paused_until = now() - interval '1 second'")
        async with counting(conn) as touched:
            rows = await claim(conn, 64, channel_limit=8)
        assert len(rows) == 1
        assert touched.rows < 30
        async with counting(conn) as touched:
            await finish(conn, rows, outcome, retry_after=1 if outcome == "limited" else None)
        assert touched.rows < 30


@pytest.mark.parametrize("analyzed", [False, True])
async def test_what_channels_and_alerts_show_costs_look_ups(conn: asyncpg.Connection, *, analyzed: bool) -> None:
    """The cost is independent of the size of the history."""
    channels = [await seed.channel(conn, f"c{number}") for number in range(3)]
    await conn.execute(
        f"""
        set session_replication_role = replica;
        insert into delivery_attempts (tenant_id, job_id, channel_id, attempt, lease_epoch, worker, outcome)
        select 'acme', i, {channels[0]} + i % 2, 1, 1, 'w', 'delivered' from generate_series(1, {BACKLOG}) i;
        insert into suppressions (tenant_id, event_id, alert_id, channel_id, reason)
        select 'acme', i, i / 4, {channels[0]}, 'no_route' from generate_series(1, {BACKLOG}) i;
        insert into notification_jobs (tenant_id, event_id, alert_id, channel_id, kind, payload, state, finished_at)
        select 'acme', i, i / 4, {channels[1]}, 'opened', '{{}}', 'delivered', now()
        from generate_series(1, {BACKLOG}) i;
        reset session_replication_role
        """
    )
    if analyzed:
        await conn.execute("vacuum analyze delivery_attempts, suppressions, notification_jobs")
    async with conn.transaction():
        await conn.execute("select set_config('pulse.tenant_id', 'acme', true)")
        read = await entries_read(conn, "select * from api.channels order by channel_id")
        assert read["delivery_attempts"] <= 2 * 2 * len(channels)
        read = await entries_read(conn, "select * from api.decisions where alert_id = 77 order by event_id, channel_id")
        assert max(read["suppressions"], read["notification_jobs"]) <= 2 * 4 * 2


async def test_functions_that_forbid_plans_forbid_jit_too(conn: asyncpg.Connection) -> None:
    """Before Postgres 18 a disabled plan costs 1e10, which would trigger JIT at each call."""
    rows = await conn.fetch(
        "select oid::regprocedure::text as name, proconfig from pg_proc"
        " where pronamespace = 'delivery'::regnamespace and array_to_string(proconfig, ' ') like '%enable_%'"
    )
    assert rows
    assert [row["name"] for row in rows if "jit=off" not in row["proconfig"]] == []
