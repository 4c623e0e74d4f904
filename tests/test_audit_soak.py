"""Nobody touches the log, everything else happens at once: `pulse audit verify` must not cry wolf.

For longer: PULSE_SOAK_SECONDS=86400 PULSE_SOAK_WRITERS=64 python -m pytest tests/test_audit_soak.py --timeout=0
"""

import asyncio
import os
import random
import time
from pathlib import Path

import asyncpg

from services.local.audit.kept import read_kept
from services.shared import db
from tests.sealed_log import MONTHS, SealedLog, make_sealer

SECONDS = float(os.environ.get("PULSE_SOAK_SECONDS", "8"))
WRITERS = int(os.environ.get("PULSE_SOAK_WRITERS", "16"))


async def test_no_false_alarm_while_all_write_and_seal(
    conn: asyncpg.Connection, database_url: str, app_pool: db.Pool, auditor_pool: db.Pool, tmp_path: Path
) -> None:
    """Writers with random delays, aborts and late months, two sealers in turn, rows that move to new partitions."""
    log = SealedLog(conn, app_pool, auditor_pool, tmp_path, make_sealer(tmp_path, rows=100))
    end = time.monotonic() + SECONDS
    committed = 0
    verified: list[int] = []

    def in_time() -> bool:
        return time.monotonic() < end

    async def write(seed: int) -> None:
        nonlocal committed
        chance = random.Random(seed)
        connection = await asyncpg.connect(database_url)
        writer = SealedLog(connection, app_pool, auditor_pool, tmp_path, log.sealer)
        while in_time():
            transaction = connection.transaction()
            await transaction.start()
            count = chance.randint(1, 5)
            await writer.write(count, timestamp=chance.choice([*MONTHS, "now", "now", "now"]))
            await connection.execute("select pg_sleep($1)", chance.choice([0, 0, 0.01, 0.1, 1.0]) * chance.random())
            if chance.random() < 0.8:
                await transaction.commit()
                committed += count
            else:
                await transaction.rollback()
        await connection.close()

    async def seal() -> None:
        rival = SealedLog(conn, app_pool, auditor_pool, tmp_path, make_sealer(tmp_path, holder="two", rows=7))
        turn = 0
        while in_time():
            turn += 1
            await (rival if turn % 5 == 0 else log).seal()
            await conn.execute("update audit.sealer set lease_until = '-infinity'")
            if turn % 40 == 20:
                await conn.execute("select * from ops.ensure_partitions()")

    async def verify() -> None:
        while in_time():
            report = await log.verify()
            assert [str(fault) for fault in report.faults] == []
            verified.append(report.hashed)

    async with asyncio.TaskGroup() as group:
        for work in (seal(), verify(), *(write(seed) for seed in range(WRITERS))):
            group.create_task(work)
    before = -1
    while (sealed := await conn.fetchval("select coalesce(sum(row_count), 0) from audit.blocks")) != before:
        before = sealed
        await log.seal()
    report = await log.verify()
    total = await conn.fetchval("select count(*) from audit_log")
    written = await conn.fetchval("select count(*) from audit_log where event_type = 'alert.opened'")
    assert ([str(fault) for fault in report.faults], report.hashed, written) == ([], total, committed)
    assert len(verified) >= 2
    assert verified == sorted(verified)
    assert len(read_kept(log.checkpoints, log.public_keys)) > 5
