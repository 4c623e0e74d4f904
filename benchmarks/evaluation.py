"""Evaluation: readings a second that passes of evaluator.evaluate consume, with 20 rules on each reading's metric.

The reference is the bare set operation in the same run: delete the same readings from the same table and join them to
the same rules in one statement, without state, order, alerts or audit.

    pulse bench evaluation [--readings N] [--rules N] [--breaching SHARE]
"""

import argparse
import asyncio
import time

import asyncpg

from benchmarks._bench import ACTOR, print_comparison, scratch_database

REFERENCE = """
with batch as (
  delete from evaluator.inbox where ctid = any (array(select ctid from evaluator.inbox limit $1)) returning *
)
select count(*),
  count(*) filter (where case r.operator when '>' then b.value > r.threshold else b.value < r.threshold end)
from batch b join alert_rules r on r.tenant_id = b.tenant_id and r.metric = b.metric and r.enabled
"""
FILL = """
insert into evaluator.inbox (shard, reading_id, tenant_id, device_id, metric, timestamp, value, trace_id)
select core.shard_of('acme', 'd' || n % $2), $4 + n, 'acme', 'd' || n % $2, 'temperature',
  '2026-01-01'::timestamptz + ($4 + n) * interval '1 ms', case when random() < $3 then 90 else 20 end, repeat('a', 32)
from generate_series(1, $1) n
"""


async def consume(connection: asyncpg.Connection, batch: int) -> float:
    """Seconds that passes take until the inbox is empty."""
    started = time.perf_counter()
    while (await connection.fetchrow("select readings from evaluator.evaluate($1)", batch))[0]:
        pass
    return time.perf_counter() - started


async def consume_reference(connection: asyncpg.Connection, batch: int) -> float:
    """Seconds that the bare set operation takes until the inbox is empty."""
    started = time.perf_counter()
    while (await connection.fetchrow(REFERENCE, batch))[0]:
        pass
    return time.perf_counter() - started


async def run(options: argparse.Namespace) -> None:
    """Fill the inbox and empty it, by turns with the reference and with Pulse."""
    with scratch_database() as url:
        connection = await asyncpg.connect(url, server_settings=ACTOR)
        await connection.execute("insert into tenants (tenant_id, name) values ('acme', 'Acme')")
        await connection.execute(
            "insert into alert_rules (tenant_id, name, metric, operator, threshold)"
            " select 'acme', 'rule ' || n, 'temperature', '>', 80 from generate_series(1, $1) n",
            options.rules,
        )
        rates: dict[str, list[float]] = {"reference": [], "pulse": []}
        first = 0
        for _ in range(options.rounds):
            for name, work in (("reference", consume_reference), ("pulse", consume)):
                await connection.execute(FILL, options.readings, options.devices, options.breaching, first)
                first += options.readings
                await connection.execute("analyze evaluator.inbox")
                rates[name].append(options.readings / await work(connection, options.batch))
        alerts = await connection.fetchval("select count(*) from alerts")
        await connection.close()
    print_comparison(rates)
    print(f"{options.rules} rules, {options.breaching:.1%} of the readings breach, {alerts} alerts opened")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="pulse bench evaluation", description=__doc__.split("\n\n")[0])
    parser.add_argument("--readings", type=int, default=200_000, help="readings a round (default 200000)")
    parser.add_argument("--devices", type=int, default=10_000, help="devices they come from (default 10000)")
    parser.add_argument("--rules", type=int, default=20, help="rules on their metric (default 20)")
    parser.add_argument("--breaching", type=float, default=0.0, help="share of the readings that breach (default 0)")
    parser.add_argument("--batch", type=int, default=5000, help="most readings a pass takes (default 5000)")
    parser.add_argument("--rounds", type=int, default=3, help="pairs of measurements (default 3)")
    asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()
