"""`pulse audit verify` finds nothing wrong with a log that nobody touched."""

from pathlib import Path

import asyncpg
import pytest

from services.shared import db
from tests.sealed_log import SealedLog, make_sealer


@pytest.fixture
async def log(conn: asyncpg.Connection, app_pool: db.Pool, auditor_pool: db.Pool, tmp_path: Path) -> SealedLog:
    """A sealed log, empty yet."""
    return SealedLog(conn, app_pool, auditor_pool, tmp_path, make_sealer(tmp_path))


async def test_an_untouched_log_is_whole(log: SealedLog) -> None:
    """Every row is hashed, every checkpoint agrees."""
    await log.fill()
    report = await log.verify()
    assert report.faults == []
    assert report.hashed == report.rows == await log.conn.fetchval("select count(*) from audit_log")
    assert report.blocks == await log.conn.fetchval("select count(*) from audit.blocks") > 5
    assert (report.unsealed, report.checkpoints) == (0, 5)


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("timestamp", "'infinity'"),
        ("timestamp", "'-infinity'"),
        ("timestamp", "'0001-12-31 BC'"),
        ("timestamp", "'10000-01-01'"),
        ("recorded_at", "'infinity'"),
        ("duration_ms", "'NaN'"),
        ("duration_ms", "'-Infinity'"),
    ],
)
async def test_what_has_no_one_form_is_not_stored(log: SealedLog, column: str, value: str) -> None:
    """The sealer and the programs that check it would each read it in their own way."""
    await log.write(1)
    columns = {"timestamp": "now()", "recorded_at": "now()", "duration_ms": "1", column: value}
    with pytest.raises(asyncpg.CheckViolationError, match=f"audit_log_{column}_check"):
        await log.conn.execute(
            "insert into audit_log (event_id, event_type, category, action, message, source_service,"
            f" {', '.join(columns)}) values (gen_random_uuid(), 'rule.deleted', 'rule', 'deleted', 'm', 's',"
            f" {', '.join(columns.values())})"
        )
