"""Readings in: ingest.record_readings against a hand-written COPY of the same readings into the same table.

The reference does what cannot be left out: COPY into the partitioned, indexed telemetry table, upsert the newest value
of each device and metric, notify, commit. Pulse does that and more: it checks devices, drops repeats, queues the
readings for the evaluator and audits the batch. The benchmark exits with status 1 unless every reading is stored, and
on Pulse's side also queued and audited.

    pulse bench readings_in [--seconds N] [--batch N] [--connections N]
"""

import argparse
import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

import asyncpg

from benchmarks._bench import ACTOR, as_role, conclude, print_comparison, require_effect, scratch_database

DEVICES = 1000
START = datetime(2026, 1, 1, tzinfo=UTC)
UPSERT = """
insert into device_state as d (tenant_id, device_id, metric, timestamp, value, received_at)
select distinct on (device_id, metric) 'acme', device_id, metric, timestamp, value, now()
from unnest($1::text[], $2::text[], $3::timestamptz[], $4::float8[]) as r (device_id, metric, timestamp, value)
order by device_id, metric, timestamp desc
on conflict (tenant_id, device_id, metric) do update
set timestamp = excluded.timestamp, value = excluded.value, received_at = excluded.received_at
where excluded.timestamp > d.timestamp
"""

STORED = "select count(*) from telemetry"
QUEUED = "select count(*) from evaluator.inbox"
AUDITED = """
select coalesce(sum((details ->> 'accepted')::bigint), 0) from audit_log where event_type = 'device.readings_accepted'
"""

Columns = tuple[list[str], list[str], list[datetime], list[float]]


def make_batch(number: int, size: int) -> Columns:
    """Return a batch with every device in turn and one metric, strictly later than the previous batch."""
    devices = [f"d{(number * size + place) % DEVICES}" for place in range(size)]
    times = [START + timedelta(milliseconds=number * size + place) for place in range(size)]
    return devices, ["temperature"] * size, times, [float(place % 70) for place in range(size)]


async def send_copy(connection: asyncpg.Connection, batch: Columns) -> None:
    """Store a batch as the reference does."""
    async with connection.transaction():
        await connection.copy_records_to_table(
            "telemetry",
            records=zip(itertools.repeat("acme"), *batch, itertools.repeat("0" * 31 + "1")),
            columns=["tenant_id", "device_id", "metric", "timestamp", "value", "trace_id"],
        )
        await connection.execute(UPSERT, *batch)
        await connection.execute("select pg_notify('pulse_evaluator', '')")


async def send_pulse(connection: asyncpg.Connection, batch: Columns) -> None:
    """Store a batch as Pulse does."""
    accepted = await connection.fetchval(
        "select accepted from ingest.record_readings('acme', $1, $2, $3, $4, $5)", *batch, "0" * 31 + "1"
    )
    require_effect("readings accepted", found=accepted, expected=len(batch[0]))


async def measure(
    url: str, send: Callable[[asyncpg.Connection, Columns], Awaitable[None]], options: argparse.Namespace, first: int
) -> tuple[float, int, int]:
    """Return the readings a second over all connections, the number of the next unused batch, and the readings sent."""
    numbers = itertools.count(first)
    end = time.perf_counter() + options.seconds
    sent = 0

    async def run() -> None:
        nonlocal sent
        connection = await asyncpg.connect(url)
        try:
            while time.perf_counter() < end:
                await send(connection, make_batch(next(numbers), options.batch))
                sent += options.batch
        finally:
            await connection.close()

    started = time.perf_counter()
    await asyncio.gather(*(run() for _ in range(options.connections)))
    return sent / (time.perf_counter() - started), next(numbers), sent


async def measure_by_turns(url: str, owner: asyncpg.Connection, options: argparse.Namespace) -> dict[str, list[float]]:
    """Alternate reference and Pulse, so that a noisy neighbor affects both, and check what each stored."""
    rates: dict[str, list[float]] = {"reference": [], "pulse": []}
    first = audited = 0
    for _ in range(options.rounds):
        for name, send in (("reference", send_copy), ("pulse", send_pulse)):
            role = url if name == "reference" else as_role(url, "pulse_app")
            rate, first, sent = await measure(role, send, options, first)
            rates[name].append(rate)
            queued = sent if name == "pulse" else 0
            audited += queued
            require_effect(f"readings stored by {name}", found=await owner.fetchval(STORED), expected=sent)
            require_effect(f"readings queued by {name}", found=await owner.fetchval(QUEUED), expected=queued)
            await owner.execute("truncate telemetry, evaluator.inbox")
    require_effect("readings audited", found=await owner.fetchval(AUDITED), expected=audited)
    return rates


async def run(options: argparse.Namespace) -> None:
    """Prepare, measure and print."""
    with scratch_database() as url:
        owner = await asyncpg.connect(url, server_settings=ACTOR)
        await owner.execute("insert into tenants (tenant_id, name) values ('acme', 'Acme')")
        await owner.execute(
            "insert into devices (tenant_id, device_id, name)"
            " select 'acme', 'd' || n, 'd' || n from generate_series(0, $1) n",
            DEVICES - 1,
        )
        await owner.execute(
            "create table telemetry_bench partition of telemetry for values from ('2026-01-01') to ('2027-01-01')"
        )
        rates = await measure_by_turns(url, owner, options)
        updates = await owner.fetchrow(
            "select n_tup_upd, n_tup_hot_upd from pg_stat_user_tables where relname = 'device_state'"
        )
        await owner.close()
    print_comparison(rates)
    hot = f"{updates['n_tup_hot_upd'] / updates['n_tup_upd']:.0%}" if updates["n_tup_upd"] else "none was counted"
    print(f"device_state updates that were HOT: {hot}")


def main() -> None:
    """Read the arguments and run."""
    parser = argparse.ArgumentParser(prog="pulse bench readings_in", description=__doc__.split("\n\n")[0])
    parser.add_argument("--seconds", type=float, default=5.0, help="length of each measurement (default 5)")
    parser.add_argument("--batch", type=int, default=1000, help="readings a batch (default 1000)")
    parser.add_argument("--connections", type=int, default=2, help="connections that send at once (default 2)")
    parser.add_argument("--rounds", type=int, default=3, help="pairs of measurements (default 3)")
    conclude(run(parser.parse_args()))


if __name__ == "__main__":
    main()
