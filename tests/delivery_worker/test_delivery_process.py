"""The delivery worker as a process: killed while sending, stopped, run twice."""

import asyncio
import signal
from typing import Any

import asyncpg
import orjson
import pytest

from tests.support import seed
from tests.support.delivery import alert, job, states
from tests.support.processes import Running, ready_service
from tests.support.receiver import Receiver
from tests.support.wait import until

MODULE = "services.delivery_worker"
SECRET = "whsec_MDEyMzQ1Njc4OWFiY2RlZmdoaWprbG1u"
QUICK = {
    "allow_private_destinations": "true",
    "delivery_lease_seconds": "1.5",
    "delivery_timeout_seconds": "0.7",
    "delivery_reap_seconds": "0.1",
    "delivery_backoff_seconds": "0.05",
    "poll_seconds": "0.1",
    "log_level": "DEBUG",
}


async def webhook(conn: asyncpg.Connection, receiver: Receiver, name: str = "sink") -> int:
    """Return a webhook channel to the receiver."""
    config = {"url": f"{receiver.url}/hush-hush-hush", "secret": SECRET}
    return await seed.channel(conn, name, config=orjson.dumps(config).decode())


async def all_are(conn: asyncpg.Connection, state: str) -> bool:
    """Return whether every job is in this state."""
    return set((await states(conn)).values()) == {state}


def attempts(worker: Running) -> list[dict[str, Any]]:
    """Return the log lines of attempts."""
    return [line for line in worker.lines if "outcome" in line]


async def test_a_worker_killed_in_mid_send_loses_nothing(conn: asyncpg.Connection, app_url: str) -> None:
    """The lease expires, the attempt is recorded as unknown, and another worker sends the same webhook-id."""
    async with Receiver() as receiver:
        receiver.hold.clear()
        number = await job(conn, await webhook(conn, receiver))
        async with ready_service(MODULE, app_url, **QUICK) as first:
            await until(lambda: len(receiver.requests) == 1)
            assert await first.stop(signal.SIGKILL) == -signal.SIGKILL
        assert await states(conn) == {number: "leased"}
        receiver.hold.set()
        async with ready_service(MODULE, app_url, **QUICK) as second:
            await until(lambda: all_are(conn, "delivered"), seconds=20)
            assert await second.stop() == 0
            (line,) = attempts(second)
        assert (line["attempt"], line["outcome"], line["trace_id"]) == (2, "delivered", "a" * 32)
        sent, again = receiver.requests
        assert sent.header("webhook-id") == again.header("webhook-id")
        assert sent.body == again.body
        assert sent.header("x-trace-id") == again.header("x-trace-id") == "a" * 32
        assert sent.header("traceparent") != again.header("traceparent")
    rows = await conn.fetch("select outcome from delivery_attempts order by attempt_id")
    assert [row["outcome"] for row in rows] == ["unknown", "delivered"]


async def test_sigterm_finishes_what_is_in_hand(conn: asyncpg.Connection, app_url: str) -> None:
    """A running request ends and is recorded. The exit is clean, and no line shows a secret, even at DEBUG."""
    async with Receiver() as receiver:
        receiver.hold.clear()
        await job(conn, await webhook(conn, receiver))
        async with ready_service(MODULE, app_url, **QUICK, delivery_stop_seconds="5") as worker:
            await until(lambda: len(receiver.requests) == 1)
            stopping = asyncio.ensure_future(worker.stop())
            await until(lambda: [line for line in worker.lines if line.get("message") == "stopping"])
            receiver.hold.set()
            assert await stopping == 0
            assert await all_are(conn, "delivered")
            assert [line["outcome"] for line in attempts(worker)] == ["delivered"]
            assert "hush-hush-hush" not in str(worker.lines)
            assert SECRET not in str(worker.lines)
            assert [line for line in worker.lines if "not_json" in line] == []


async def test_a_notification_wakes_it(conn: asyncpg.Connection, app_url: str) -> None:
    """The poll interval is an hour. The end of the first job wakes the worker for the next."""
    async with Receiver() as receiver, ready_service(MODULE, app_url, **QUICK | {"poll_seconds": "3600"}) as worker:
        channel, trouble = await webhook(conn, receiver), await alert(conn)
        async with conn.transaction():
            await job(conn, channel, alert_id=trouble)
            await job(conn, channel, alert_id=trouble, kind="closed")
            await conn.execute("notify pulse_delivery")
        await until(lambda: all_are(conn, "delivered"))
        types = [request.json()["type"] for request in receiver.requests]
        assert types == ["alert.opened", "alert.closed"]
        text = (await worker.get("/metrics")).text
        for operation in ("claim", "send", "finish", "reap"):
            assert f'processing_duration_seconds_bucket{{le="0.005",operation="{operation}"' in text
        assert 'pulse_queue_depth{queue_name="notification_jobs",service="delivery_worker"} 0.0' in text
        assert await worker.stop() == 0


@pytest.mark.slow
async def test_two_processes_deliver_each_job_once_while_one_dies(conn: asyncpg.Connection, app_url: str) -> None:
    """Every job arrives. Only jobs of the dead worker may arrive twice, with the same id."""
    async with (
        Receiver() as receiver,
        ready_service(MODULE, app_url, **QUICK, delivery_concurrency="4") as doomed,
        ready_service(MODULE, app_url, **QUICK, delivery_concurrency="4") as survivor,
    ):
        channels = [await webhook(conn, receiver, f"c{number}") for number in range(4)]
        async with conn.transaction():
            for number in range(80):
                await job(conn, channels[number % 4])
            await conn.execute("notify pulse_delivery")
        await until(lambda: len(receiver.requests) > 10)
        await doomed.stop(signal.SIGKILL)
        await until(lambda: all_are(conn, "delivered"), seconds=30)
        assert await survivor.stop() == 0
        keys = [request.header("webhook-id") for request in receiver.requests]
        assert len(set(keys)) == 80
        unknown = await conn.fetchval("select count(*) from delivery_attempts where outcome = 'unknown'")
        assert len(keys) - 80 <= unknown <= 4
