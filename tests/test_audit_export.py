"""An export is proven by a program that knows neither Pulse nor the database, and whatever is done to it is found."""

import asyncio
import io
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import asyncpg
import orjson
import pytest

from services.local.audit.evidence import Question
from services.local.audit.export import write_export
from services.local.audit.prove import find
from services.local.database import LocalStack
from services.local.errors import LocalError
from services.ops_worker.sealing.key_file import KeyFile
from services.shared import db
from tests.migrating import ROOT
from tests.sealed_log import SealedLog, make_sealer

ALL = Question(datetime(2000, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC))


@pytest.fixture
async def log(
    conn: asyncpg.Connection, app_pool: db.Pool, role_url: Callable[[str], str], tmp_path: Path
) -> AsyncIterator[SealedLog]:
    reader = await db.open_pool(LocalStack(database_url=role_url("pulse_auditor"), pool_min_size=0, pool_max_size=2))
    yield SealedLog(conn, app_pool, reader, tmp_path, make_sealer(tmp_path))
    await reader.close()


async def export(log: SealedLog, question: Question = ALL) -> list[bytes]:
    """Lines of an export."""
    file = io.BytesIO()
    await write_export(log.reader, question, file)
    return file.getvalue().splitlines(keepends=True)


async def check(log: SealedLog, lines: Sequence[bytes], *options: str, key: str | None = None) -> tuple[int, str]:
    """Exit status and output of the program, run in an empty directory without anything of ours."""
    empty = log.home / "empty"
    empty.mkdir(exist_ok=True)
    done = await asyncio.to_thread(
        subprocess.run,
        [
            sys.executable,
            "-I",
            ROOT / "docs" / "verify_export.py",
            "--key",
            key or str(log.sealer.keys.public_path),
            *options,
            "-",
        ],
        input=b"".join(lines),
        capture_output=True,
        check=False,
        cwd=empty,
        timeout=60,
    )
    return done.returncode, (done.stdout + done.stderr).decode()


async def test_an_export_holds_every_sealed_event_in_order(log: SealedLog) -> None:
    """And is verified offline, with the key's file or its text."""
    await log.fill()
    lines = [orjson.loads(line) for line in await export(log)]
    events = [line["event"]["event_id"] for line in lines if line["type"] == "event"]
    rows = await log.conn.fetch(
        "select l.event_id::text from audit.blocks b, audit._rows_between(b.previous_snapshot, b.snapshot) l"
        " where audit._segment(l.timestamp) = b.segment"
        ' order by b.block_no, l.xid, l.timestamp, l.tenant_id collate "C", l.event_id'
    )
    assert events == [row[0] for row in rows]
    status, said = await check(log, await export(log))
    assert (status, said.splitlines()[0]) == (
        0,
        f"As sealed: {len(events)} events in {sum(line['type'] == 'block' for line in lines)} blocks.",
    )
    assert (await check(log, await export(log), key=str(log.public_keys[0])))[0] == 0
