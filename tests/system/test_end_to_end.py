"""One reading from a device to a webhook through the real processes, undisturbed and while each process is killed."""

import hashlib
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import asyncpg
import httpx
import orjson
import pytest

from tests.support import seed
from tests.support.chain import SECRET, SETTINGS, TOKEN, TRACE, is_signed, reading
from tests.support.processes import Running, ready_service
from tests.support.receiver import Receiver, Request
from tests.support.wait import until

UI, EVALUATOR, DISPATCHER, DELIVERY = (
    "services.ui_iot",
    "services.evaluator_iot",
    "services.dispatcher",
    "services.delivery_worker",
)


@dataclass(slots=True)
class Stack:
    """The running processes by module, the receiver, and a method to start more."""

    receiver: Receiver
    services: dict[str, list[Running]]
    exits: AsyncExitStack
    url: str

    async def start(self, module: str) -> Running:
        """Start one more process of a service and return it."""
        running = await self.exits.enter_async_context(ready_service(module, self.url, **SETTINGS))
        self.services.setdefault(module, []).append(running)
        return running

    async def kill(self, module: str) -> None:
        """Kill -9 every process of the service."""
        for running in self.services.pop(module):
            assert await running.stop(signal.SIGKILL) == -signal.SIGKILL

    async def post(self, *readings: dict[str, Any], trace_id: str | None = None, token: str = TOKEN) -> httpx.Response:
        """Send readings as the device does."""
        headers = {"authorization": f"Bearer {token}"} | ({"x-trace-id": trace_id} if trace_id else {})
        async with httpx.AsyncClient(trust_env=False, timeout=20) as client:
            return await client.post(
                f"{self.services[UI][0].url}/ingest/v1/readings", json={"readings": list(readings)}, headers=headers
            )


def event_kind(got: Request) -> str:
    """Return the kind of the request's alert event."""
    return str(got.json()["type"]).removeprefix("alert.")


def distinct(receiver: Receiver) -> list[Request]:
    """Return the first request of each webhook-id in order, as a receiver that drops repeats does."""
    return list({got.header("webhook-id"): got for got in reversed(receiver.requests)}.values())[::-1]


@asynccontextmanager
async def running_stack(conn: asyncpg.Connection, app_url: str, copies: int) -> AsyncIterator[Stack]:
    """Yield the four services of the flow, this many copies each, with one device, one rule and one webhook."""
    async with AsyncExitStack() as exits:
        sink = await exits.enter_async_context(Receiver())
        await seed.device(conn)
        await conn.execute("update devices set token_hash = $1", hashlib.sha256(TOKEN.encode()).digest())
        await seed.rule(conn)
        config = orjson.dumps({"url": sink.url + "/hook", "secret": SECRET}).decode()
        await seed.route(conn, await seed.channel(conn, config=config))
        stack = Stack(sink, {}, exits, app_url)
        await stack.start(UI)
        for module in (EVALUATOR, DISPATCHER, DELIVERY):
            for _ in range(copies):
                await stack.start(module)
        yield stack


async def test_one_reading_reaches_the_webhook_under_one_trace(conn: asyncpg.Connection, app_url: str) -> None:
    """The device's trace id is in every row, every service's log and the webhook's request."""
    async with running_stack(conn, app_url, 1) as stack:
        answer = await stack.post(reading(95), trace_id=TRACE)
        assert (answer.status_code, answer.headers["x-trace-id"]) == (202, TRACE)
        assert answer.json()["accepted"] == 1
        await until(lambda: stack.receiver.requests, seconds=15)
        got = stack.receiver.requests[0]

        assert is_signed(got)
        assert got.header("x-trace-id") == TRACE
        assert str(got.header("traceparent")).split("-")[1] == TRACE
        assert (event_kind(got), got.json()["data"]["alert"]["device_id"]) == ("opened", "boiler-1")

        async def is_audited() -> bool:
            kinds = await conn.fetch("select event_type from audit_log where trace_id = $1", TRACE)
            return {row["event_type"] for row in kinds} >= {
                "device.authenticated",
                "device.readings_accepted",
                "alert.opened",
                "delivery.queued",
                "delivery.delivered",
            }

        await until(is_audited, seconds=10)
        for table in ("telemetry", "alerts", "alert_events", "notification_jobs", "delivery_attempts"):
            assert await conn.fetchval(f"select count(*) from {table} where trace_id = $1", TRACE) == 1, table
        for module in (UI, EVALUATOR, DISPATCHER, DELIVERY):
            running = stack.services[module][0]
            assert await running.stop() == 0
            assert [line for line in running.lines if line.get("trace_id") == TRACE], module
            assert not [line for line in running.lines if "not_json" in line], module


@pytest.mark.slow
@pytest.mark.parametrize("module", [UI, EVALUATOR, DISPATCHER, DELIVERY])
async def test_each_service_may_be_killed(conn: asyncpg.Connection, app_url: str, module: str) -> None:
    """Kill -9 of one service between two readings: each alert event is still delivered once, opened before closed."""
    async with running_stack(conn, app_url, 1) as stack:
        assert (await stack.post(reading(95, seconds_ago=3))).status_code == 202
        if module == UI:
            await until(lambda: stack.receiver.requests, seconds=15)
        await stack.kill(module)
        if module != UI:
            assert (await stack.post(reading(20, seconds_ago=2), reading(96, seconds_ago=1))).status_code == 202
        await stack.start(module)
        if module == UI:
            assert (await stack.post(reading(20, seconds_ago=2), reading(96, seconds_ago=1))).status_code == 202

        await until(lambda: len(distinct(stack.receiver)) >= 3, seconds=30)

        async def is_drained() -> bool:
            return bool(
                await conn.fetchval(
                    "select count(*) filter (where state <> 'delivered') = 0 and count(*) = 3 from notification_jobs"
                )
            )

        await until(is_drained, seconds=30)
        assert [event_kind(got) for got in distinct(stack.receiver)] == ["opened", "closed", "opened"]
        # Only a worker that died between request and record may have delivered twice.
        assert len(stack.receiver.requests) == 3 or module == DELIVERY


@pytest.mark.slow
async def test_a_worker_killed_in_the_middle_of_a_request(conn: asyncpg.Connection, app_url: str) -> None:
    """The lease expires, the attempt is recorded as unknown, and the repeat has the same webhook-id."""
    async with running_stack(conn, app_url, 1) as stack:
        stack.receiver.hold.clear()
        await stack.post(reading(95), trace_id=TRACE)
        await until(lambda: stack.receiver.requests, seconds=15)
        await stack.kill(DELIVERY)
        stack.receiver.hold.set()
        await stack.start(DELIVERY)

        async def is_delivered() -> bool:
            return bool(await conn.fetchval("select exists (select from notification_jobs where state = 'delivered')"))

        await until(is_delivered, seconds=30)
        assert len({got.header("webhook-id") for got in stack.receiver.requests}) == 1
        assert {got.header("x-trace-id") for got in stack.receiver.requests} == {TRACE}
        outcomes = await conn.fetch("select outcome from delivery_attempts order by attempt")
        assert [row["outcome"] for row in outcomes] == ["unknown", "delivered"]


@pytest.mark.slow
async def test_two_copies_of_each_notify_the_same_as_one(conn: asyncpg.Connection, app_url: str) -> None:
    """With two evaluators, dispatchers and delivery workers every notification is sent once, in order."""
    async with running_stack(conn, app_url, 2) as stack:
        spikes = [reading(95 if number % 2 else 20, seconds_ago=60 - number) for number in range(40)]
        for number in range(0, 40, 4):
            assert (await stack.post(*spikes[number : number + 4])).status_code == 202
        await until(lambda: len(stack.receiver.requests) >= 39, seconds=40)

        async def is_drained() -> bool:
            return bool(
                await conn.fetchval(
                    "select (select count(*) = 0 from evaluator.inbox) and"
                    " (select count(*) = 0 from alert_events where dispatched_at is null) and"
                    " (select count(*) filter (where state <> 'delivered') = 0 from notification_jobs)"
                )
            )

        await until(is_drained, seconds=30)
        assert len(stack.receiver.requests) == len(distinct(stack.receiver)) == 39
        by_alert: dict[int, list[str]] = {}
        for got in stack.receiver.requests:
            by_alert.setdefault(got.json()["data"]["alert"]["alert_id"], []).append(event_kind(got))
        assert sorted(by_alert.values()) == [["opened"]] + [["opened", "closed"]] * 19
