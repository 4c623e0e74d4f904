"""A service does not start on a database that reports a commit before it is durable."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from services.local.postgres.server import EmbeddedPostgres
from services.shared.connecting.faults import UnsafeDatabase
from services.shared.connecting.fitness import check_durability
from tests.support.migrator import Migrator
from tests.support.processes import Running, service
from tests.support.wait import until

SERVICES = ("ui_iot", "evaluator_iot", "dispatcher", "delivery_worker", "ops_worker")


@pytest.fixture
def durable() -> Iterator[EmbeddedPostgres]:
    """A migrated server that keeps its commits."""
    with tempfile.TemporaryDirectory(prefix="pulse-test-") as directory:
        Path(directory).chmod(0o755)
        with EmbeddedPostgres(Path(directory) / "postgres") as server:
            Migrator(server.url()).upgrade()
            yield server


async def said_at_exit(running: Running) -> str:
    """Return the reason for the failed start, from its one line."""
    assert await running.process.wait() == 1
    await until(lambda: any(line.get("level") == "error" for line in running.lines))
    errors = [line["message"] for line in running.lines if line.get("level") == "error"]
    assert len(errors) == 1, running.lines
    return str(errors[0])


@pytest.mark.slow
async def test_every_writing_service_refuses_a_database_that_would_lose_rows(durable: EmbeddedPostgres) -> None:
    """This includes a setting of only our role; one clear line and status 1."""
    owner = await asyncpg.connect(durable.url())
    url = durable.url("pulse_app")
    async with service("services.evaluator_iot", url, allow_unsafe_database="") as running:
        await until(running.is_ready, seconds=30)
        assert await running.stop() == 0
    await owner.execute("alter role pulse_app set synchronous_commit = off")
    await owner.close()
    for name in SERVICES:
        async with service(f"services.{name}", url, allow_unsafe_database="") as running:
            assert await said_at_exit(running) == (
                "cannot start: the database would lose committed rows in a crash: synchronous_commit is off"
            )
    async with service("services.dispatcher", url) as running:
        await until(running.is_ready, seconds=30)


async def test_the_fault_is_named(conn: asyncpg.Connection) -> None:
    """For the session that asks; waiting for the local disk is the minimum."""
    fsync = await conn.fetchval("select current_setting('fsync')")
    for level in ("on", "local", "remote_write", "remote_apply", "off"):
        await conn.execute(f"set synchronous_commit = {level}")
        fault = "fsync is off" if fsync == "off" else "synchronous_commit is off" if level == "off" else None
        assert await conn.fetchval("select core.durability_fault()") == fault
        if fault is None:
            await check_durability(conn)
        else:
            with pytest.raises(UnsafeDatabase, match=fault):
                await check_durability(conn)
