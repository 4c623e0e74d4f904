"""`pulse audit verify` finds nothing wrong with a log that nobody touched."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import asyncpg
import pytest

from services.local.database import LocalStack
from services.shared import db
from tests.sealed_log import SealedLog, make_sealer


@pytest.fixture
async def log(
    conn: asyncpg.Connection, app_pool: db.Pool, role_url: Callable[[str], str], tmp_path: Path
) -> AsyncIterator[SealedLog]:
    reader = await db.open_pool(LocalStack(database_url=role_url("pulse_auditor"), pool_min_size=0, pool_max_size=2))
    made = SealedLog(conn, app_pool, reader, tmp_path, make_sealer(tmp_path))
    yield made
    await reader.close()


async def test_an_untouched_log_is_whole(log: SealedLog) -> None:
    """Every row is hashed, every checkpoint agrees."""
    await log.fill()
    report = await log.verify()
    assert report.faults == []
    assert report.hashed == report.rows == await log.conn.fetchval("select count(*) from audit_log")
    assert report.blocks == await log.conn.fetchval("select count(*) from audit.blocks") > 5
    assert (report.unsealed, report.checkpoints) == (0, 5)
