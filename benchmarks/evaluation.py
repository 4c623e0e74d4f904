"""Evaluation: readings a second that passes of evaluator.evaluate consume, with 20 rules on each reading's metric.

The reference is the bare set operation in the same run: delete the same readings from the same table and join them to
the same devices and rules in one statement, without state, order, alerts or audit.

Every round compares the alerts that were opened and closed with those that the readings demand, and the last step
lets every device breach once, which every rule must answer. The benchmark exits with status 1 if an alert is missing
or extra.

    pulse bench evaluation [--readings N] [--rules N] [--breaching SHARE]
"""

import argparse
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import asyncpg

from benchmarks._bench import ACTOR, conclude, print_comparison, require_effect, scratch_database

THRESHOLD, QUIET, BREACHING = 80.0, 20.0, 90.0
REQUEST = 5000
_PRIME = 2_654_435_761
"""Knuth's multiplier: spreads the breaching readings evenly over devices and time, the same in every run."""

REFERENCE = """
with batch as (
  delete from evaluator.inbox where ctid = any (array(select ctid from evaluator.inbox limit $1)) returning *
)
select (select count(*) from batch),
  count(*) filter (where case r.operator when '>' then b.value > r.threshold else b.value < r.threshold end)
from batch b
join devices d on d.tenant_id = b.tenant_id and d.device_id = b.device_id and d.enabled
join alert_rules r on r.tenant_id = b.tenant_id and r.metric = b.metric and r.enabled
"""
CHANGES = "select kind, count(*) from alert_events where kind in ('opened', 'closed') group by kind"


class Fleet:
    """Devices that send one reading each millisecond in turn, and the alerts that these must cause."""

    def __init__(self, *, devices: int, breaching: float, readings: int, rounds: int) -> None:
        self.devices = devices
        self.share = breaching
        self.sent = 0
        self.changes = {"opened": 0, "closed": 0}
        self.breached: set[int] = set()
        # No reading may be ahead of the clock: the evaluator would judge it by its arrival.
        self.start = datetime.now(UTC) - timedelta(milliseconds=2 * readings * rounds, hours=1)

    def values(self, count: int) -> list[float]:
        """Return the values of the next readings."""
        numbers = range(self.sent, self.sent + count)
        return [BREACHING if n * _PRIME % 2**32 < self.share * 2**32 else QUIET for n in numbers]

    def judge(self, first: int, values: Sequence[float]) -> None:
        """Count what one rule must do about these readings."""
        for number, value in enumerate(values, start=first):
            device = number % self.devices
            if value > THRESHOLD and device not in self.breached:
                self.breached.add(device)
                self.changes["opened"] += 1
            elif value <= THRESHOLD and device in self.breached:
                self.breached.remove(device)
                self.changes["closed"] += 1

    async def send(self, connection: asyncpg.Connection, values: Sequence[float]) -> None:
        """Store readings as ui_iot does, which puts them into the inbox."""
        for place in range(0, len(values), REQUEST):
            part = values[place : place + REQUEST]
            numbers = range(self.sent, self.sent + len(part))
            accepted = await connection.fetchval(
                "select accepted from ingest.record_readings('acme', $1, $2, $3, $4, $5)",
                [f"d{n % self.devices}" for n in numbers],
                ["temperature"] * len(part),
                [self.start + timedelta(milliseconds=n) for n in numbers],
                part,
                "a" * 32,
            )
            require_effect("readings stored", found=accepted, expected=len(part))
            self.sent += len(part)


async def consume(connection: asyncpg.Connection, batch: int) -> tuple[float, int]:
    """Return the seconds until passes have emptied the inbox, and the readings they consumed."""
    return await _empty(connection, "select readings from evaluator.evaluate($1)", batch)


async def consume_reference(connection: asyncpg.Connection, batch: int) -> tuple[float, int]:
    """Return the seconds until the bare set operation has emptied the inbox, and the readings it consumed."""
    return await _empty(connection, REFERENCE, batch)


async def _empty(connection: asyncpg.Connection, statement: str, batch: int) -> tuple[float, int]:
    started, readings = time.perf_counter(), 0
    while (row := await connection.fetchrow(statement, batch))[0]:
        readings += row[0]
    return time.perf_counter() - started, readings


async def check_changes(connection: asyncpg.Connection, fleet: Fleet, rules: int) -> None:
    """Compare the alerts' events with what the readings demand of every rule."""
    found = dict(await connection.fetch(CHANGES))
    for kind, expected in fleet.changes.items():
        require_effect(f"alerts {kind}", found=found.get(kind, 0), expected=expected * rules)


async def prove_rules(connection: asyncpg.Connection, fleet: Fleet, options: argparse.Namespace) -> None:
    """Let each device breach once, which shows that every rule was active."""
    values = [BREACHING] * options.devices
    fleet.judge(fleet.sent, values)
    await fleet.send(connection, values)
    await consume(connection, options.batch)
    await check_changes(connection, fleet, options.rules)


async def prepare(connection: asyncpg.Connection, options: argparse.Namespace) -> None:
    """Make the tenant, without limits, its devices and its rules."""
    await connection.execute("insert into tenants (tenant_id, name) values ('acme', 'Acme')")
    await connection.execute(
        "insert into devices (tenant_id, device_id, name)"
        " select 'acme', 'd' || n, 'd' || n from generate_series(0, $1 - 1) n",
        options.devices,
    )
    await connection.execute(
        "insert into alert_rules (tenant_id, name, metric, operator, threshold)"
        " select 'acme', 'rule ' || n, 'temperature', '>', $2 from generate_series(1, $1) n",
        options.rules,
        THRESHOLD,
    )
    await connection.execute(
        "insert into tenant_limits (tenant_id, limit_name, value, updated_at)"
        " select 'acme', limit_name, 0, now() from tenant_limits"
        " where tenant_id = 'system' and limit_name <> 'evaluation_weight'"
    )
    await connection.execute("select ops.ensure_partitions()")
    await connection.execute("analyze devices, alert_rules")


async def run(options: argparse.Namespace) -> None:
    """Fill the inbox and empty it, by turns with the reference and with Pulse."""
    fleet = Fleet(
        devices=options.devices, breaching=options.breaching, readings=options.readings, rounds=options.rounds
    )
    with scratch_database() as url:
        connection = await asyncpg.connect(url, server_settings=ACTOR)
        await prepare(connection, options)
        rates: dict[str, list[float]] = {"reference": [], "pulse": []}
        spent = 0.0
        for _ in range(options.rounds):
            for name, work in (("reference", consume_reference), ("pulse", consume)):
                values = fleet.values(options.readings)
                if name == "pulse":
                    fleet.judge(fleet.sent, values)
                await fleet.send(connection, values)
                await connection.execute("vacuum analyze evaluator.inbox")
                seconds, readings = await work(connection, options.batch)
                require_effect(f"readings consumed by {name}", found=readings, expected=options.readings)
                rates[name].append(readings / seconds)
                spent += seconds if name == "pulse" else 0.0
            await check_changes(connection, fleet, options.rules)
        transitions = sum(fleet.changes.values()) * options.rules
        await prove_rules(connection, fleet, options)
        await connection.close()
    print_comparison(rates)
    print(
        f"{options.rules} rules, {options.breaching:.1%} of the readings breach:"
        f" {transitions:,} alerts opened or closed, {transitions / spent:,.0f}/s"
    )


def main() -> None:
    """Read the arguments and run."""
    parser = argparse.ArgumentParser(prog="pulse bench evaluation", description=__doc__.split("\n\n")[0])
    parser.add_argument("--readings", type=int, default=200_000, help="readings a round (default 200000)")
    parser.add_argument("--devices", type=int, default=10_000, help="devices they come from (default 10000)")
    parser.add_argument("--rules", type=int, default=20, help="rules on their metric (default 20)")
    parser.add_argument("--breaching", type=float, default=0.0, help="share of the readings that breach (default 0)")
    parser.add_argument("--batch", type=int, default=5000, help="most readings a pass takes (default 5000)")
    parser.add_argument("--rounds", type=int, default=3, help="pairs of measurements (default 3)")
    conclude(run(parser.parse_args()))


if __name__ == "__main__":
    main()
