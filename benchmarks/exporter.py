"""Scrapes: what the exporter adds to the same queries sent by hand, beside Debian's postgres_exporter.

reference  the exporter's own queries in a plain asyncpg loop on one connection, prepared once, nothing rendered
pulse      a scrape of `python -m exporter` over HTTP: one snapshot, the catalog read anew, rendered
foreign    the same views as custom queries of prometheus-postgres-exporter, where that is installed

For each the latency that the scraper sees, the time that the database was active (pg_stat_database) and the memory of
the process; then how many passes 50 scrapes at once cost. The benchmark exits with status 1 if a side leaves out a
view.

    pulse bench exporter [--history N] [--pending N] [--scrapes N] [--rounds N]
"""

import argparse
import asyncio
import json
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

import asyncpg

from benchmarks._bench import as_role, conclude, percentile, require_effect, scratch_database
from benchmarks._exporter_database import fill
from benchmarks._exporter_sides import (
    FOREIGN,
    ByHand,
    OverHttp,
    Side,
    postgres_exporter,
    pulse_exporter,
    resident_megabytes,
    scrape_at_once,
)
from exporter.catalog import read_catalog
from exporter.link import Link
from exporter.shape import Kind, ViewShape, shape_of
from migrations.role_names import RoleNames
from services.shared.settings import ExporterSettings

AT_ONCE = 50
UP = ("pulse_exporter_up ", "pg_up ")


@dataclass
class Found:
    """Times of one side in each round."""

    seconds: list[list[float]] = field(default_factory=list)
    database_ms: list[float] = field(default_factory=list)
    megabytes: float = 0.0

    def median_ms(self, number: int) -> float:
        """Return the median latency of a round."""
        return percentile(self.seconds[number], 0.5) * 1000


async def read_shapes(url: str) -> list[ViewShape]:
    """Return the metrics that the exporter finds."""
    link = Link(ExporterSettings(database_url=url))
    await link.begin("begin")
    shapes = [shape_of(view, max_rows=1000) for view in await read_catalog(link)]
    link.drop()
    return [shape for shape in shapes if isinstance(shape, ViewShape)]


async def database_ms(conn: asyncpg.Connection) -> float:
    """Return the active time of the exporter role's sessions, after they have ended and reported their counts."""
    sessions = "select pid from pg_stat_activity where usename = 'pulse_exporter'"
    sessions = RoleNames.find().rename(sessions)
    await conn.execute(f"select pg_terminate_backend(pid) from ({sessions}) s")
    while await conn.fetch(sessions):
        await asyncio.sleep(0.01)
    await conn.execute("select pg_stat_clear_snapshot()")
    # The benchmark's session counts in the same row, but reports only these queries within a round.
    return float(await conn.fetchval("select active_time from pg_stat_database where datname = current_database()"))


async def measure(side: Side, found: Found, scrapes: int) -> None:
    """Run one round of one side, after a scrape that connects and prepares."""
    if isinstance(side, OverHttp):
        side.connect()
    await side.scrape()
    taken = []
    for _ in range(scrapes):
        started = time.perf_counter()
        await side.scrape()
        taken.append(time.perf_counter() - started)
    if isinstance(side, OverHttp):
        up = [float(line.split()[1]) for line in side.get("/metrics").decode().splitlines() if line.startswith(UP)]
        require_effect("whether scrapes read the database", found=sum(up), expected=1)
    found.seconds.append(taken)
    found.megabytes = resident_megabytes(side.pid)


async def run(options: argparse.Namespace) -> None:
    """Fill the database, let all sides scrape it by turns, print."""
    with scratch_database() as url, ExitStack() as processes:
        conn = await asyncpg.connect(url)
        started = time.perf_counter()
        await fill(conn, history=options.history, pending=options.pending)
        took = time.perf_counter() - started
        print(f"{options.history:,} rows of history, {options.pending:,} pending, made in {took:.0f} s")
        exporter_url = as_role(url, "pulse_exporter")
        shapes = await read_shapes(exporter_url)
        exporter = processes.enter_context(pulse_exporter(exporter_url))
        foreign = processes.enter_context(postgres_exporter(exporter_url, shapes))
        found = {"reference": Found(), "pulse": Found()} | ({"foreign": Found()} if foreign else {})
        before = await database_ms(conn)
        for _ in range(options.rounds):
            for name, results in found.items():
                hand = await asyncpg.connect(exporter_url) if name == "reference" else None
                side = {"pulse": exporter, "foreign": foreign}.get(name) or ByHand(hand, shapes)
                await measure(side, results, options.scrapes)
                after = await database_ms(conn)
                results.database_ms.append((after - before) / (options.scrapes + 1 + isinstance(side, OverHttp)))
                before = after
        await check_views(exporter_url, exporter, foreign, shapes)
        passes = await count_passes(exporter)
        await conn.close()
    print_sides(found, views=len(shapes))
    if "foreign" not in found:
        print(f"foreign    not compared: {FOREIGN} is not installed")
    print(f"{AT_ONCE} scrapes at once: {passes} pass{'' if passes == 1 else 'es'} over the database")


async def check_views(url: str, exporter: OverHttp, foreign: OverHttp | None, shapes: Sequence[ViewShape]) -> None:
    """Check that every side returned every view, because leaving some out would be faster."""
    hand = await asyncpg.connect(url)
    rows = {shape.name: len(await hand.fetch(shape.query)) for shape in shapes}
    await hand.close()
    require_effect("views with rows", found=sum(map(bool, rows.values())) > len(rows) // 2, expected=True)
    exporter.connect()
    served = {line.split()[0]: line.split()[1] for line in exporter.get("/metrics").decode().splitlines()}
    for shape in shapes:
        name = shape.name.removeprefix("pulse_") + ("_total" if shape.kind is Kind.COUNTER else "")
        expected = rows[shape.name]
        success = served.get(f'pulse_exporter_view_success{{view="{name}"}}', "0")
        require_effect(f"whether view {name} is served", found=int(float(success)), expected=1)
        shown = served.get(f'pulse_exporter_view_rows{{view="{name}"}}', "0")
        require_effect(f"rows of view {name}", found=int(float(shown)), expected=expected)
    if foreign:
        foreign.connect()
        await foreign.scrape()  # finds that its connection was ended
        text = foreign.get("/metrics").decode()
        missing = [name for name, expected in rows.items() if expected and f"\n{name}_value" not in text]
        require_effect(f"views that {FOREIGN} leaves out ({', '.join(missing)})", found=len(missing), expected=0)


async def count_passes(exporter: OverHttp) -> int:
    """Measure the passes that simultaneous scrapes cost."""
    exporter.connect()
    await exporter.scrape()
    before = passes_of(exporter)
    scrape_at_once(exporter, AT_ONCE)
    return passes_of(exporter) - before


def passes_of(exporter: OverHttp) -> int:
    """Return the passes since the process started."""
    exporter.connect()
    return int(json.loads(exporter.get("/health"))["counters"]["passes"])


def print_sides(found: Mapping[str, Found], *, views: int) -> None:
    """Print a line for each side, then the median ratio of the others to the reference."""
    print(f"{views} views         p50 ms    p99 ms   database ms   memory MB")
    for name, results in found.items():
        all_ms = [seconds * 1000 for taken in results.seconds for seconds in taken]
        print(
            f"{name:16} {percentile(all_ms, 0.5):>8.2f}  {percentile(all_ms, 0.99):>8.2f}"
            f"  {middle(results.database_ms):>12.2f}  {results.megabytes:>10.0f}"
        )
    rounds = range(len(found["reference"].seconds))
    for name in [name for name in found if name != "reference"]:
        latency = middle([found[name].median_ms(n) / found["reference"].median_ms(n) for n in rounds])
        database = middle([found[name].database_ms[n] / found["reference"].database_ms[n] for n in rounds])
        title = "ratio" if name == "pulse" else f"ratio {name}"
        print(f"{title:16} {latency:>8.2f} x the reference's latency, {database:.2f} x its time in the database")


def middle(values: Sequence[float]) -> float:
    """Return the median."""
    return percentile(list(values), 0.5)


def main() -> None:
    """Read the arguments and run."""
    parser = argparse.ArgumentParser(prog="pulse bench exporter", description=__doc__.split("\n\n")[0])
    parser.add_argument("--history", type=int, default=1_000_000, help="rows that are over (default 1000000)")
    parser.add_argument("--pending", type=int, default=100_000, help="rows that wait (default 100000)")
    parser.add_argument("--scrapes", type=int, default=100, help="scrapes a round and side (default 100)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds (default 5)")
    conclude(run(parser.parse_args()))


if __name__ == "__main__":
    main()
