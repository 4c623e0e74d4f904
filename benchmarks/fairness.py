"""Fairness: how long one tenant's readings wait for their evaluation while another tenant attacks.

The attack is a request of readings that breach many rules by turns, again and again while the measurement lasts.
The reference is the same evaluator without the attack. Both loops of the evaluator run in this process against a real
database. Each probe stores one reading of the quiet tenant and waits until it is evaluated.

    pulse bench fairness [--probes N] [--rules N] [--readings N]
"""

import argparse
import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import asyncpg

from benchmarks._bench import ACTOR, conclude, percentile, require_effect, running, scratch_database
from services.evaluator_iot.evaluator import build
from services.shared import db
from services.shared.metrics import ProcessMetrics
from services.shared.server import Process
from services.shared.settings import EvaluatorSettings
from services.shared.worker.listener import Listener
from services.shared.worker.metrics import WorkerMetrics
from services.shared.worker.process import run_loops

SEND = "select accepted from ingest.record_readings($1, $2, $3, $4, $5, null)"
WAITS = "select exists (select from evaluator.inbox where tenant_id = $1)"


async def prepare(connection: asyncpg.Connection, rules: int) -> None:
    """Make the two tenants, a device each, and the rules."""
    for tenant_id, count in (("attacker", rules), ("quiet", 20)):
        await connection.execute("insert into tenants (tenant_id, name) values ($1, $1)", tenant_id)
        await connection.execute("insert into devices (tenant_id, device_id, name) values ($1, 'd', 'd')", tenant_id)
        await connection.execute(
            "insert into alert_rules (tenant_id, name, metric, operator, threshold)"
            " select $1, 'rule ' || n, 'temperature', '>', 80 from generate_series(1, $2) n",
            tenant_id,
            count,
        )
    await connection.execute("select ops.ensure_partitions()")


async def send(connection: asyncpg.Connection, tenant_id: str, values: list[float], start: datetime) -> None:
    """Store readings as ui_iot does."""
    accepted = await connection.fetchval(
        SEND,
        tenant_id,
        ["d"] * len(values),
        ["temperature"] * len(values),
        [start + timedelta(milliseconds=number) for number in range(len(values))],
        values,
    )
    require_effect("readings stored", found=accepted, expected=len(values))


async def until_evaluated(connection: asyncpg.Connection, tenant_id: str, *, look_seconds: float) -> None:
    """Wait until none of the tenant's readings wait."""
    while await connection.fetchval(WAITS, tenant_id):
        await asyncio.sleep(look_seconds)


async def attack(url: str, readings: int) -> None:
    """Send the next request of the attacker as soon as the one before is evaluated, until canceled."""
    connection = await asyncpg.connect(url, server_settings=ACTOR)
    start = datetime.now(UTC) - timedelta(days=1)
    try:
        while True:
            await send(connection, "attacker", [90.0 if number % 2 else 20.0 for number in range(readings)], start)
            start += timedelta(milliseconds=readings)
            await until_evaluated(connection, "attacker", look_seconds=0.05)
    finally:
        connection.terminate()


async def probe(url: str, probes: int) -> list[float]:
    """Return the seconds that each of the quiet tenant's readings waited, one after the other."""
    connection = await asyncpg.connect(url, server_settings=ACTOR)
    waits = []
    for _ in range(probes):
        started = time.perf_counter()
        await send(connection, "quiet", [20.0], datetime.now(UTC))
        await until_evaluated(connection, "quiet", look_seconds=0.0005)
        waits.append(time.perf_counter() - started)
        await asyncio.sleep(0.01)
    await connection.close()
    return waits


@asynccontextmanager
async def evaluator(url: str) -> AsyncIterator[None]:
    """Run the loops of an evaluator."""
    settings = EvaluatorSettings(database_url=url, allow_unsafe_database=True)
    process = Process(settings, ProcessMetrics("evaluator_iot"), await db.open_pool(settings))
    loops = build(process)
    metrics = WorkerMetrics(process.metrics, loops=[loop.operation for loop in loops])
    stop = asyncio.Event()
    running = asyncio.create_task(
        run_loops(process, loops, metrics=metrics, listener=Listener(process, metrics), stop=stop)
    )
    try:
        yield
    finally:
        stop.set()
        await running
        assert process.pool is not None
        await db.close_pool(process.pool)


async def run(options: argparse.Namespace) -> None:
    """Measure without and with the attack, by turns."""
    waits: dict[str, list[float]] = {"reference": [], "pulse": []}
    with scratch_database() as url:
        connection = await asyncpg.connect(url, server_settings=ACTOR)
        await prepare(connection, options.rules)
        async with evaluator(url):
            for _ in range(options.rounds):
                waits["reference"] += await probe(url, options.probes)
                async with running(attack(url, options.readings)):
                    waits["pulse"] += await probe(url, options.probes)
                await until_evaluated(connection, "attacker", look_seconds=0.05)
        events = await connection.fetchval("select count(*) from alert_events where tenant_id = 'attacker'")
        await connection.close()
    for name, label in (("reference", "without"), ("pulse", "with")):
        median, p99 = (percentile(waits[name], share) * 1000 for share in (0.5, 0.99))
        print(f"{name:10} p50 {median:8.1f} ms   p99 {p99:8.1f} ms   {label} the attack")
    ratio = percentile(waits["pulse"], 0.99) / percentile(waits["reference"], 0.99)
    print(f"ratio      {ratio:8.2f} x the p99 without the attack; the attacker has {events:,} alert events")


def main() -> None:
    """Read the arguments and run."""
    parser = argparse.ArgumentParser(prog="pulse bench fairness", description=__doc__.split("\n\n")[0])
    parser.add_argument("--probes", type=int, default=300, help="readings of the quiet tenant a round (default 300)")
    parser.add_argument("--rules", type=int, default=200, help="rules of the attacker (default 200)")
    parser.add_argument("--readings", type=int, default=2000, help="readings of one of its requests (default 2000)")
    parser.add_argument("--rounds", type=int, default=3, help="pairs of measurements (default 3)")
    conclude(run(parser.parse_args()))


if __name__ == "__main__":
    main()
