"""The evaluator's loop and its listener in the tests' process, with times that tests can wait for."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import count
from typing import Any

import asyncpg

from services.evaluator_iot.evaluation_metrics import EvaluationMetrics
from services.evaluator_iot.evaluator import Evaluator, build
from services.shared.db import Pool
from services.shared.metrics import ProcessMetrics
from services.shared.server import Process
from services.shared.settings import EvaluatorSettings
from services.shared.worker.listener import Listener, Timing
from services.shared.worker.metrics import WorkerMetrics
from services.shared.worker.process import run_loops
from tests.support import seed
from tests.support.wait import until

# The relation is that of the real values: two pings fit into the time in which one must return.
FAST = Timing(ping_seconds=0.1, deaf_seconds=0.4)
# No loop of these tests polls by itself.
NEVER = 3600.0


@dataclass(slots=True)
class Evaluating:
    """The evaluator's loop and its listener, in the test process."""

    process: Process
    conn: asyncpg.Connection
    ages: Iterator[int]

    def sample(self, name: str, **labels: str) -> float | None:
        """Return a metric of the worker."""
        return self.process.metrics.registry.get_sample_value(name, {"service": "evaluator_iot", **labels})

    def states(self) -> dict[str, float | None]:
        """Return the listener's gauge."""
        return {state: self.sample("pulse_listener_state", state=state) for state in ("connected", "deaf", "polling")}

    async def becomes(self, state: str) -> None:
        """Wait until the gauge shows this state and no other."""
        await until(lambda: self.states() == dict.fromkeys(self.states(), 0.0) | {state: 1.0})

    async def handles(self, readings: int) -> None:
        """Insert readings one by one, each after the previous one was evaluated."""
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
    settings = EvaluatorSettings(database_url="postgresql://unused", listen_url=listen_url, poll_seconds=NEVER)
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


async def evaluate(conn: asyncpg.Connection | Pool, limit: int = 10_000) -> int:
    """Run passes until one is idle; return the number of readings they consumed."""
    total = 0
    while True:
        row = await conn.fetchrow("select readings, transitions::text from evaluator.evaluate($1)", limit)
        total += int(row["readings"])
        if row["readings"] == 0 and row["transitions"] == "[]":
            return total


async def story(conn: asyncpg.Connection) -> list[tuple[str, float]]:
    """Kind and seconds after NOON of every alert event, in order."""
    rows = await conn.fetch("select kind, occurred_at from alert_events order by event_id")
    return [(row["kind"], (row["occurred_at"] - seed.NOON).total_seconds()) for row in rows]


async def rows_read(conn: asyncpg.Connection, tables: Sequence[str]) -> dict[str, int]:
    """Return the number of rows that scans of the tables have read in this database so far."""
    await conn.execute("select pg_stat_force_next_flush()")
    rows: list[Any] = await conn.fetch(
        "select relname, coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0) as read"
        " from pg_stat_user_tables where relname = any($1)",
        list(tables),
    )
    return {row["relname"]: row["read"] for row in rows}
