"""Parts of the audit benchmark about writing."""

import argparse
import asyncio
import json
import os
import signal
import tempfile
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

import asyncpg
import orjson
from prometheus_client import CollectorRegistry

from benchmarks._audit_events import (
    COLUMNS,
    audit_logger,
    count_rows,
    count_sealed,
    make_event,
    make_row,
    print_rates,
    sealer,
    until_sealed,
)
from benchmarks._bench import as_role, percentile, require_effect
from services.shared import db
from services.shared.audit import new_event_id
from services.shared.settings import UiSettings

BATCH = 1000
LOGGED, REFUSED = "auth.login_success", "auth.login_failure"
SPOOLED = "pulse_audit_spool_records"
MOST_WAITING = 20_000


async def measure_copy(url: str, conn: asyncpg.Connection, seconds: float) -> float:
    """Measure the reference: rows a second by plain COPY over one connection."""
    before = await count_rows(conn, LOGGED)
    pool = await db.open_pool(UiSettings(database_url=url, pool_max_size=1))
    started, rows = time.perf_counter(), 0
    async with pool.acquire() as connection:
        while time.perf_counter() - started < seconds:
            batch = [make_row() for _ in range(BATCH)]
            await connection.copy_records_to_table("audit_log", records=batch, columns=COLUMNS)
            rows += BATCH
    elapsed = time.perf_counter() - started
    await pool.close()
    require_effect("rows copied", found=await count_rows(conn, LOGGED) - before, expected=rows)
    return rows / elapsed


async def measure_logger(url: str, conn: asyncpg.Connection, seconds: float) -> tuple[float, float]:
    """Measure Pulse: events a second until all are committed, and the share sealed by then."""
    committed = await count_rows(conn, LOGGED)
    async with audit_logger(url, audit_buffer_size=MOST_WAITING + 2 * BATCH) as logger:
        before, started, count = await count_sealed(conn), time.perf_counter(), 0
        while time.perf_counter() - started < seconds:
            for _ in range(BATCH):
                logger.log(make_event())
            count += BATCH
            while logger.waiting > MOST_WAITING:
                await asyncio.sleep(0.001)
            await asyncio.sleep(0)
        await logger.record(make_event())  # durable after all earlier events
        elapsed = time.perf_counter() - started
        sealed = await count_sealed(conn) - before
    require_effect("events committed", found=await count_rows(conn, LOGGED) - committed, expected=count + 1)
    return count / elapsed, sealed / count


async def bench_throughput(url: str, conn: asyncpg.Connection, options: argparse.Namespace) -> None:
    """Measure by turns, so that a noisy neighbor affects both. The sealer is idle during the reference."""
    app_url = as_role(url, "pulse_app")
    rates: dict[str, list[float]] = {"reference": [], "pulse": []}
    shares = []
    with sealer(as_role(url, "pulse_ops")) as process:
        for _ in range(options.rounds):
            await until_sealed(conn, process)
            process.send_signal(signal.SIGSTOP)
            rates["reference"].append(await measure_copy(app_url, conn, options.seconds))
            process.send_signal(signal.SIGCONT)
            await until_sealed(conn, process)
            rate, share = await measure_logger(app_url, conn, options.seconds)
            rates["pulse"].append(rate)
            shares.append(share)
    print_rates("throughput", rates, "events/s")
    print(f"  sealed     {min(shares):>10.2f} of the written rate while it was written (least of {len(shares)} rounds)")


async def bench_soak(url: str, conn: asyncpg.Connection, options: argparse.Namespace) -> None:
    """Measure thirty times as long as the others, without a reference, to show that sealing keeps up."""
    app_url = as_role(url, "pulse_app")
    seconds = 30 * options.seconds
    with sealer(as_role(url, "pulse_ops")) as process:
        await until_sealed(conn, process)
        rate, share = await measure_logger(app_url, conn, seconds)
        started = time.perf_counter()
        await until_sealed(conn, process)
        behind = time.perf_counter() - started
    print("soak")
    print(f"  reference  {rate:>10,.0f} events/s written over {seconds:.0f} s")
    print(f"  pulse      {rate * share:>10,.0f} events/s sealed meanwhile; the rest {behind:.1f} s later")
    print(f"  ratio      {share:>10.3f} x the written rate")


async def bench_call(url: str, conn: asyncpg.Connection, options: argparse.Namespace) -> None:
    """Measure the wait of a caller of log(), which creates, cleans, checks and buffers the event."""
    count = 20_000
    plain = {name: str(value) for name, value in zip(COLUMNS, make_row(), strict=True)}

    def microseconds(work: Callable[[], object]) -> float:
        started = time.perf_counter()
        for _ in range(count):
            work()
        return (time.perf_counter() - started) / count * 1e6

    rounds = []
    before = await count_rows(conn, LOGGED)
    async with audit_logger(as_role(url, "pulse_app"), audit_buffer_size=2 * count) as logger:
        for _ in range(options.rounds):
            references = microseconds(lambda: orjson.dumps(plain)), microseconds(lambda: json.dumps(plain))
            rounds.append((*references, microseconds(lambda: logger.log(make_event()))))
            await logger.record(make_event())
    require_effect(
        "events committed", found=await count_rows(conn, LOGGED) - before, expected=options.rounds * (count + 1)
    )
    fast, slow, mine = (sorted(times)[len(times) // 2] for times in zip(*rounds, strict=True))
    print("call")
    print(f"  reference  {fast:>10.2f} µs to encode such an event with orjson, {slow:.2f} with json")
    print(f"  pulse      {mine:>10.2f} µs to make the event and log() it")
    print(f"  ratio      {mine / fast:>10.2f} x orjson, {mine / slow:.2f} x json")


async def open_loop(rate: int, seconds: float, act: Callable[[], Awaitable[object]]) -> list[float]:
    """Return the milliseconds of each call at a fixed start rate, independent of earlier calls."""
    taken: list[float] = []

    async def timed() -> None:
        started = time.perf_counter()
        await act()
        taken.append((time.perf_counter() - started) * 1000)

    tasks, started = [], time.perf_counter()
    for number in range(int(rate * seconds)):
        behind = started + number / rate - time.perf_counter()
        if behind > 0:
            await asyncio.sleep(behind)
        tasks.append(asyncio.create_task(timed()))
    await asyncio.gather(*tasks)
    return taken


async def bench_refusals(url: str, conn: asyncpg.Connection, options: argparse.Namespace) -> None:
    """Measure the wait of a 401 at a fixed rate of arrivals."""
    app_url = as_role(url, "pulse_app")
    before = await count_rows(conn, REFUSED)
    pool = await db.open_pool(UiSettings(database_url=app_url, pool_max_size=8))
    call = "call audit.record_auth_failure($1, $2, $3, $4)"

    async def call_once() -> None:
        await pool.execute(call, new_event_id(), datetime.now(UTC), "acme", "expired")

    plain = await open_loop(1000, options.seconds, call_once)
    await pool.close()
    mine = {}
    for rate in (1000, 5000):
        async with audit_logger(app_url) as logger:

            async def record(logger: object = logger) -> None:
                await logger.record(make_event(REFUSED))  # type: ignore[attr-defined]

            mine[rate] = await open_loop(rate, options.seconds, record)
    refused = len(plain) + sum(len(taken) for taken in mine.values())
    require_effect("refusals committed", found=await count_rows(conn, REFUSED) - before, expected=refused)
    print("refusals")
    print(f"  reference  {_spread(plain)} at 1,000/s: one CALL a commit over 8 connections")
    for rate, taken in mine.items():
        print(f"  pulse      {_spread(taken)} at {rate:,}/s")
    print(
        f"  ratio      {percentile(mine[1000], 0.99) / percentile(plain, 0.99):>10.2f} x the reference's p99 at 1,000/s"
    )


def _spread(milliseconds: list[float]) -> str:
    return f"p50 {percentile(milliseconds, 0.5):>6.2f} ms, p99 {percentile(milliseconds, 0.99):>7.2f} ms"


async def bench_spool(_url: str, _conn: asyncpg.Connection, options: argparse.Namespace) -> None:
    """Measure against a database that refuses connections at once, so that events become durable on the local disk."""
    gone = "postgresql://pulse_app@127.0.0.1:9/pulse"
    rates: dict[str, list[float]] = {"reference": [], "pulse": []}
    for _ in range(options.rounds):
        rates["reference"].append(measure_fsync(options.seconds / 2))
        registry = CollectorRegistry()
        async with audit_logger(gone, registry, audit_database_seconds=0.1, audit_spool_bytes=1 << 33) as logger:
            await logger.record(make_event())
            started, count = time.perf_counter(), 0
            while time.perf_counter() - started < options.seconds / 2:
                await asyncio.gather(*(logger.record(make_event()) for _ in range(BATCH)))
                count += BATCH
            rates["pulse"].append(count / (time.perf_counter() - started))
            require_effect("events spooled", found=registry.get_sample_value(SPOOLED) or 0, expected=count + 1)
    print_rates("spool", rates, "events/s")


def measure_fsync(seconds: float) -> float:
    """Measure events a second by orjson, one write and one fsync a batch."""
    with tempfile.NamedTemporaryFile() as file:
        started, count = time.perf_counter(), 0
        while time.perf_counter() - started < seconds:
            rows = [dict(zip(COLUMNS, make_row(), strict=True)) for _ in range(BATCH)]
            file.write(b"\n".join(orjson.dumps(row, default=str) for row in rows))
            file.flush()
            os.fsync(file.fileno())
            count += BATCH
        return count / (time.perf_counter() - started)
