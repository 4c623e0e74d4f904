"""Concurrent work on a log without tampering: `pulse audit verify` must find no fault.

For a longer run:
PULSE_SOAK_SECONDS=86400 PULSE_SOAK_WRITERS=64 python -m pytest tests/shared/test_audit_soak.py --timeout=0
"""

import asyncio
import os
import random
import time
from dataclasses import replace
from pathlib import Path

import asyncpg
import pytest

from services.shared import db
from services.shared.sealed_log.kept import read_kept
from tests.support.sealed_log import MONTHS, SealedLog, make_sealer

SECONDS = float(os.environ.get("PULSE_SOAK_SECONDS", "8"))
WRITERS = int(os.environ.get("PULSE_SOAK_WRITERS", "16"))


class Soak:
    """Writers, sealers and a verifier that run until the time is over."""

    def __init__(self, log: SealedLog, url: str) -> None:
        self.log = log
        self.url = url
        self.end = time.monotonic() + SECONDS
        self.committed = 0
        self.hashed: list[int] = []

    def in_time(self) -> bool:
        """Return whether time is left."""
        return time.monotonic() < self.end

    async def write(self, seed: int) -> None:
        """Write transactions of random length, one in five aborted, some into past months."""
        chance = random.Random(seed)
        connection = await asyncpg.connect(self.url)
        writer = replace(self.log, conn=connection)
        while self.in_time():
            transaction = connection.transaction()
            await transaction.start()
            count = chance.randint(1, 5)
            await writer.write(count, timestamp=chance.choice([*MONTHS, "now", "now", "now"]))
            await connection.execute("select pg_sleep($1)", chance.choice([0, 0, 0.01, 0.1, 1.0]) * chance.random())
            if chance.random() < 0.8:
                await transaction.commit()
                self.committed += count
            else:
                await transaction.rollback()
        await connection.close()

    async def seal(self) -> None:
        """Run two sealers in turn, and make partitions for rows that already exist."""
        rival = replace(self.log, sealer=make_sealer(self.log.home, holder="two", rows=7))
        turn = 0
        while self.in_time():
            turn += 1
            await (rival if turn % 5 == 0 else self.log).seal()
            await self.log.conn.execute("update audit.sealer set lease_until = '-infinity'")
            if turn % 40 == 20:
                await self.log.conn.execute("select * from ops.ensure_partitions()")

    async def verify(self) -> None:
        """Run one check after the other; each must find no fault."""
        while self.in_time():
            report = await self.log.verify(independent=len(self.hashed) % 2 == 1)
            assert [str(fault) for fault in report.faults] == []
            self.hashed.append(report.hashed)


@pytest.mark.slow
async def test_no_false_alarm_while_all_write_and_seal(
    conn: asyncpg.Connection, database_url: str, ops_pool: db.Pool, auditor_pool: db.Pool, tmp_path: Path
) -> None:
    """In the end every committed row is sealed once."""
    log = SealedLog(conn, ops_pool, auditor_pool, tmp_path, make_sealer(tmp_path, rows=100))
    soak = Soak(log, database_url)
    async with asyncio.TaskGroup() as group:
        for work in (soak.seal(), soak.verify(), *(soak.write(seed) for seed in range(WRITERS))):
            group.create_task(work)
    total, sealed = await conn.fetchval("select count(*) from audit_log"), -1
    while sealed < total:
        await log.seal()
        before, sealed = sealed, await conn.fetchval("select coalesce(sum(row_count), 0)::bigint from audit.blocks")
        assert sealed > before
    report = await log.verify()
    written = await conn.fetchval("select count(*) from audit_log where event_type = 'alert.opened'")
    assert ([str(fault) for fault in report.faults], report.hashed, written) == ([], total, soak.committed)
    assert len(soak.hashed) >= 2
    assert soak.hashed == sorted(soak.hashed)
    assert len(read_kept(log.checkpoints, log.public_keys)) > 5
