"""A worker that hears nothing knows it: behind a network that swallows packets and ends no connection."""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from itertools import count

import asyncpg
import pytest

from services.evaluator_iot.evaluator import build
from services.local.chaos.proxy import MessageProxy
from services.shared.db import Pool
from services.shared.metrics import ProcessMetrics
from services.shared.server import Process
from services.shared.settings import EvaluatorIot
from services.shared.worker.listener import Listener, Timing
from services.shared.worker.loop import UNWOKEN_POLL_SECONDS
from services.shared.worker.metrics import WorkerMetrics
from services.shared.worker.process import run_loops
from tests import seed
from tests.wait import until

# The relation is that of the real ones: two pings fit into the time in which one must come back.
FAST = Timing(ping_seconds=0.1, deaf_seconds=0.4)
# No loop of these tests looks by itself.
NEVER = 3600.0


@dataclass(slots=True)
class Evaluating:
    """The evaluator's loop and its listener, in this process."""

    process: Process
    conn: asyncpg.Connection
    ages: Iterator[int]

    def sample(self, name: str, **labels: str) -> float | None:
        """A metric of the worker."""
        return self.process.metrics.registry.get_sample_value(name, {"service": "evaluator_iot", **labels})

    def states(self) -> dict[str, float | None]:
        """The listener's gauge."""
        return {state: self.sample("pulse_listener_state", state=state) for state in ("connected", "deaf", "polling")}

    async def becomes(self, state: str) -> None:
        """Return when the gauge shows the state and no other."""
        await until(lambda: self.states() == dict.fromkeys(self.states(), 0.0) | {state: 1.0})

    async def handles(self, readings: int) -> None:
        """Insert readings one by one, each when the one before was evaluated."""
        for _ in range(readings):
            await seed.readings(self.conn, (-next(self.ages), 20))
            await until(self._is_drained)

    async def _is_drained(self) -> bool:
        return not await self.conn.fetchval("select exists (select from evaluator.inbox)")


@asynccontextmanager
async def evaluating(
    conn: asyncpg.Connection, pool: Pool, listen_url: str | None, timing: Timing = FAST
) -> AsyncIterator[Evaluating]:
    """Run the evaluator's loop on the pool, its listener on another URL."""
    await seed.device(conn)
    settings = EvaluatorIot(database_url="postgresql://unused", listen_url=listen_url, poll_seconds=NEVER)
    process = Process(settings, ProcessMetrics("evaluator_iot"), pool)
    metrics = WorkerMetrics(process.metrics, loops=["evaluate"])
    listener = Listener(process, metrics, timing=timing)
    stop = asyncio.Event()
    running = asyncio.create_task(
        run_loops(process, build(process), metrics=metrics, listener=listener, stop=stop), name="worker"
    )
    try:
        yield Evaluating(process, conn, count())
    finally:
        stop.set()
        await asyncio.wait_for(running, 10)


async def test_a_deaf_listener_polls_says_so_and_recovers(
    conn: asyncpg.Connection, app_url: str, app_pool: Pool, caplog: pytest.LogCaptureFixture
) -> None:
    """In a hole work is found by polling, at the start too; after it a notification wakes the loop again."""
    caplog.set_level(logging.DEBUG, "services.shared.worker.listener")

    def told() -> list[str]:
        return [record.message.split(":")[0] for record in caplog.records if record.levelno >= logging.INFO]

    async with MessageProxy(app_url, lambda _: "pass") as network:
        network.stall("client", "server")
        async with evaluating(conn, app_pool, network.url) as worker:
            assert worker.states() == {"connected": 0, "deaf": 1, "polling": 0}
            await worker.handles(1)
            await worker.becomes("deaf")
            await until(lambda: told() == ["listener is deaf"])
            network.resume()
            await worker.becomes("connected")
            # With a poll interval of an hour only notifications explain that each is found.
            await worker.handles(3)

            network.stall("client", "server")
            await worker.becomes("deaf")
            await worker.handles(2)
            await worker.becomes("deaf")
            network.resume()
            await worker.becomes("connected")
            await worker.handles(3)
            assert (worker.sample("pulse_listener_restarts_total") or 0) >= 1
            assert told() == ["listener is deaf", "listener is connected"] * 2

            # A ping that was not sent proves nothing: all connections of the pool have work to do.
            caplog.clear()
            async with AsyncExitStack() as held:
                for _ in range(app_pool.get_max_size()):
                    await held.enter_async_context(app_pool.acquire())
                await until(lambda: sum("ping not sent" in record.message for record in caplog.records) >= 2)
                assert worker.states()["connected"] == 1
            assert told() == []


def test_the_real_times_leave_a_margin() -> None:
    """Two pings in the 5 s; a poll each second."""
    timing = Timing()
    assert timing.deaf_seconds == 5.0
    assert 1.0 < timing.ping_seconds <= timing.deaf_seconds / 2
    assert FAST.ping_seconds <= FAST.deaf_seconds / 2
    assert UNWOKEN_POLL_SECONDS == 1.0
