"""Parts of the audit benchmark about proofs."""

import argparse
import time

import asyncpg

from benchmarks._audit_events import KEY, count_sealed, print_rates, sealer, until_sealed
from benchmarks._audit_writing import measure_copy
from benchmarks._bench import MeasurementVoid, as_role, require_effect
from services.shared import db
from services.shared.sealed_log.verification import Verification
from services.shared.settings import UiSettings


async def bench_verify(url: str, conn: asyncpg.Connection, options: argparse.Namespace) -> None:
    """Measure the verification of all existing rows and some more."""
    app_url = as_role(url, "pulse_app")
    with sealer(as_role(url, "pulse_ops")) as process:
        await measure_copy(app_url, conn, options.seconds)
        await until_sealed(conn, process)
    rows = await count_sealed(conn)
    everything = await conn.fetchval("select count(*) from audit_log")
    rates: dict[str, list[float]] = {"reference": [], "pulse": []}
    settings = UiSettings(database_url=as_role(url, "pulse_auditor"), pool_max_size=2)
    async with await db.open_pool(settings) as pool:
        for _ in range(options.rounds):
            started = time.perf_counter()
            hashed = await conn.fetchval("select count(audit._leaf_hash(l)) from audit_log l")
            rates["reference"].append(hashed / (time.perf_counter() - started))
            require_effect("rows hashed by the reference", found=hashed, expected=everything)
            started = time.perf_counter()
            report = await Verification(pool, KEY.verifiers(), []).run()
            rates["pulse"].append(report.hashed / (time.perf_counter() - started))
            require_effect("rows verified", found=report.hashed, expected=rows)
            require_effect("faults found", found=len(report.faults), expected=0)
    print_rates("verify", rates, "rows/s")


async def bench_size(_url: str, conn: asyncpg.Connection, _options: argparse.Namespace) -> None:
    """Measure the stored bytes."""
    rows = await conn.fetchval("select count(*) from audit_log")
    if not await count_sealed(conn):
        raise MeasurementVoid("size: nothing is sealed; name a part that seals before it, such as verify")
    heap, indexes = await conn.fetchrow(
        "select sum(pg_table_size(relid)), sum(pg_indexes_size(relid)) from pg_partition_tree('audit_log') where isleaf"
    )
    proof, blocks = await conn.fetchrow(
        "select sum(pg_total_relation_size(c)), (select count(*) from audit.blocks)"
        " from unnest(array['audit.blocks', 'audit.tree_nodes', 'audit.checkpoints']::regclass[]) c"
    )
    print("size")
    print(f"  reference  {heap / rows:>10.0f} bytes a row in the table, {indexes / rows:.0f} in its indexes")
    print(f"  pulse      {proof / rows:>10.2f} bytes a row for the proof: {blocks:,} blocks over {rows:,} rows")
    print(f"  ratio      {1 + proof / (heap + indexes):>10.3f} x the table without the proof")
