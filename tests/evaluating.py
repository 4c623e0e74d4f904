"""The evaluator's loop and its listener in the tests' process, with times that tests can wait for."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import count

import asyncpg

from services.evaluator_iot.evaluation_metrics import EvaluationMetrics
from services.evaluator_iot.evaluator import Evaluator, build
from services.shared.db import Pool
from services.shared.metrics import ProcessMetrics
from services.shared.server import Process
from services.shared.settings import EvaluatorIot
from services.shared.worker.listener import Listener, Timing
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


def evaluator_of(*, readings: int = 5000, pairs: int = 100_000, slow_seconds: float = NEVER) -> Evaluator:
    """Return an evaluator without its loops; its limits do not depend on the machine's speed."""
    metrics = EvaluationMetrics(ProcessMetrics("evaluator_iot"))
    return Evaluator(readings=readings, pairs=pairs, metrics=metrics, slow_seconds=slow_seconds)


@asynccontextmanager
async def evaluating(
    conn: asyncpg.Connection, pool: Pool, listen_url: str, *, timing: Timing = FAST
) -> AsyncIterator[Evaluating]:
    """Run the evaluator's loop on the pool, its listener on another URL."""
    await seed.device(conn)
    settings = EvaluatorIot(database_url="postgresql://unused", listen_url=listen_url, poll_seconds=NEVER)
    process = Process(settings, ProcessMetrics("evaluator_iot"), pool)
    loops = build(process)
    metrics = WorkerMetrics(process.metrics, loops=[loop.operation for loop in loops])
    listener = Listener(process, metrics, timing=timing)
    stop = asyncio.Event()
    running = asyncio.create_task(
        run_loops(process, loops, metrics=metrics, listener=listener, stop=stop), name="worker"
    )
    try:
        yield Evaluating(process, conn, count())
    finally:
        stop.set()
        await asyncio.wait_for(running, 10)
