"""The audit trail: rates of AuditLogger, the sealer and verification, each beside a bare reference.

throughput  events through AuditLogger.log() until they are committed, while the sealer seals them, against plain
            asyncpg COPY of 1,000-row batches into the same table; and the share sealed meanwhile
soak        the same without the reference for 30 times as long: whether sealing keeps up; only when named
call        microseconds that log() takes from its caller, against encoding such an event with orjson and with json
refusals    what a refused login waits for until its row is committed, at a fixed rate, against one CALL a commit
spool       must events to the local disk while the database is away, against one write and fsync a batch
verify      rows re-hashed by `pulse audit verify`, against the same hashes without order, blocks or proof
size        bytes a row, with indexes, and what sealing adds

    pulse bench audit [--only NAME …] [--seconds N] [--rounds N]
"""

import argparse
import sys

import asyncpg

from benchmarks._audit_events import KEY
from benchmarks._audit_proof import bench_size, bench_verify
from benchmarks._audit_writing import bench_call, bench_refusals, bench_soak, bench_spool, bench_throughput
from benchmarks._bench import conclude, scratch_database

PARTS = {
    "throughput": bench_throughput,
    "soak": bench_soak,
    "call": bench_call,
    "refusals": bench_refusals,
    "spool": bench_spool,
    "verify": bench_verify,
    "size": bench_size,
}


async def run(options: argparse.Namespace) -> None:
    """Run the requested parts on one database."""
    with scratch_database() as url:
        KEY.load()
        conn = await asyncpg.connect(url)
        await conn.execute("select ops.ensure_partitions()")
        for name in options.only or [name for name in PARTS if name != "soak"]:
            await PARTS[name](url, conn, options)
            sys.stdout.flush()
        await conn.close()
        for path in (KEY.path, KEY.public_path, KEY.memory.path):
            path.unlink()


def main() -> None:
    """Read the arguments and run."""
    parser = argparse.ArgumentParser(prog="pulse bench audit", description=__doc__.split("\n\n")[0])
    parser.add_argument("--only", nargs="+", choices=PARTS, metavar="NAME", help=f"parts to run: {', '.join(PARTS)}")
    parser.add_argument("--seconds", type=float, default=10.0, help="length of each measurement (default 10)")
    parser.add_argument("--rounds", type=int, default=3, help="pairs of measurements (default 3)")
    conclude(run(parser.parse_args()))


if __name__ == "__main__":
    main()
