"""Roles that only read cannot stop the product by locks, by open transactions or by the NOTIFY queue."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from migrations.layer_catalog import SCHEMAS
from migrations.role_names import CALLERS
from services.dispatcher.dispatcher import build
from services.local.postgres.server import EmbeddedPostgres
from services.ops_worker.workers.partition_worker import PartitionWorker
from services.ops_worker.workers.session_guard import end_overdue_sessions
from services.shared import db
from services.shared.metrics import ProcessMetrics
from services.shared.server import Process
from services.shared.settings import DispatcherSettings, UiSettings
from services.shared.worker.listener import Listener
from services.shared.worker.loop import run_loop
from services.shared.worker.metrics import WorkerMetrics
from tests.support import seed
from tests.support.evaluation import evaluating
from tests.support.migrator import Migrator
from tests.support.wait import until

READERS = ("pulse_exporter", "pulse_auditor", "pulse_operator")


@asynccontextmanager
async def reading(url: str) -> AsyncIterator[asyncpg.Connection]:
    """Yield a session of a reader that removed its own limits."""
    connection = await asyncpg.connect(url)
    limits = ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout")
    await connection.execute("; ".join(f"set {limit} = 0" for limit in limits))
    await connection.execute("set default_transaction_read_only = off")
    yield connection
    await connection.close()


async def test_no_lock_of_the_layer_is_open_to_every_login(conn: asyncpg.Connection) -> None:
    """Any login can take advisory locks, but only the owner can lock the rows that gate work."""
    query = "select proname from pg_proc where pronamespace = any ($1::regnamespace[]) and prosrc ~ 'advisory'"
    assert await conn.fetch(query, list(SCHEMAS)) == []
    for role in CALLERS:
        for statement in (
            "select from ops.work_locks for key share",
            "lock table ops.work_locks in access share mode",
            "lock table public.alembic_version in row share mode",
        ):
            async with conn.transaction():
                await conn.execute(f"set local role pulse_{role}")
                with pytest.raises(asyncpg.InsufficientPrivilegeError):
                    async with conn.transaction():
                        await conn.execute(statement)


async def test_a_reader_cannot_hold_up_a_migration(database_url: str, role_url: Callable[[str], str]) -> None:
    """A first migration no longer takes the advisory lock."""
    async with reading(role_url("pulse_exporter")) as reader, reader.transaction():
        await reader.execute("select pg_advisory_lock(4865765586851406717)")
        assert (await asyncio.to_thread(Migrator(database_url).upgrade)).startswith("nothing to do")


async def test_a_reader_cannot_keep_tokens_from_being_revoked(
    conn: asyncpg.Connection, role_url: Callable[[str], str]
) -> None:
    """Neither a revocation nor a new key waits for a lock that a login without rights can take."""
    await seed.tenant(conn)
    revocation = {"subject": "mallory", "reason": "lost", "expires_in_seconds": 60}
    key = {"name": "k", "role": "viewer", "scopes": ["alerts:read"], "expires_in_days": 1, "key_hash": "00" * 32}
    async with reading(role_url("pulse_exporter")) as reader:
        for name in ("revocations", "api keys"):
            await reader.execute("select pg_advisory_lock(hashtextextended($1, 0))", f"pulse {name} acme")
        await conn.execute("set lock_timeout = '5s'; set pulse.tenant_id = 'acme'; set pulse.actor_type = 'user'")
        await conn.execute("set pulse.actor_id = 'alice'")
        await conn.execute("select ingest.create_revocation($1)", json.dumps(revocation))
        await conn.execute("select ingest.create_api_key($1)", json.dumps(key))


async def waiting_event(conn: asyncpg.Connection) -> None:
    """Insert an alert event that the dispatcher has not decided about."""
    await seed.tenant(conn)
    await conn.execute("select evaluator.open_alert('acme', 'test', 'name', 'warning', 'message', repeat('a', 32))")


async def test_a_blocked_dispatcher_is_a_failed_pass_that_names_its_blocker(
    conn: asyncpg.Connection, app_url: str, app_pool: db.Pool, caplog: pytest.LogCaptureFixture
) -> None:
    """A dispatcher that hangs in its transaction blocks the others, and they report it."""
    await waiting_event(conn)
    text = await conn.fetchval("select pg_get_functiondef('ops._take_lock(text,interval)'::regprocedure)")
    await conn.execute(re.sub(r"DEFAULT '[^']+'::interval", "DEFAULT '1 microsecond'::interval", text))
    hung = await asyncpg.connect(app_url)
    transaction = hung.transaction()
    await transaction.start()
    await hung.execute("select dispatcher.dispatch(1)")
    process = Process(DispatcherSettings(database_url=app_url), ProcessMetrics("dispatcher"), app_pool)
    metrics = WorkerMetrics(process.metrics, loops=["dispatch"])
    stop = asyncio.Event()
    [loop] = build(process)
    running = asyncio.create_task(
        run_loop(loop, process, metrics=metrics, listener=Listener(process, metrics), stop=stop)
    )

    def failed_passes() -> float:
        labels = {"service": "dispatcher", "operation": "dispatch"}
        return process.metrics.registry.get_sample_value("pulse_worker_failed_passes_total", labels) or 0

    failure: Any = await until(
        lambda: next((each for each in caplog.records if "pass failed" in each.getMessage()), None)
    )
    pid = hung.get_server_pid()
    assert failed_passes() >= 1
    assert f"by pid {pid} of role pulse_app" in failure.getMessage()
    assert (pid, "pulse_app") in [(each["pid"], each["role"]) for each in failure.blockers]
    assert failure.exc_info is None
    await transaction.rollback()
    await until(lambda: conn.fetchval("select not exists (select from alert_events where dispatched_at is null)"))
    stop.set()
    await running
    await hung.close()


async def test_a_lock_that_is_missing_for_an_interval_fails_the_pass(
    conn: asyncpg.Connection, ops_pool: db.Pool, role_url: Callable[[str], str], caplog: pytest.LogCaptureFixture
) -> None:
    """A reader of a table blocks new partitions: the first pass names the reader, the second one fails."""
    await conn.execute("select ops.ensure_partitions(1, 1)")
    newest = await conn.fetchval(
        "select max(inhrelid::regclass::text) from pg_inherits where inhparent = 'telemetry'::regclass"
        " and inhrelid <> 'telemetry_default'::regclass"
    )
    await conn.execute(f"drop table {newest}")
    worker = PartitionWorker(ahead_days=1, ahead_months=1)
    async with reading(role_url("pulse_operator")) as reader, reader.transaction():
        await reader.execute("select from telemetry")
        caplog.set_level("INFO", "services.ops_worker")
        assert await worker.make(ops_pool) == 0
        named = next(record for record in caplog.records if "waits for the next pass" in record.message)
        assert f"pid {reader.get_server_pid()} of role pulse_operator" in named.message
        with pytest.raises(asyncpg.LockNotAvailableError):
            await worker.make(ops_pool)
    assert await worker.make(ops_pool) == 0
    assert await conn.fetchval("select to_regclass($1) is not null", newest)


async def test_transactions_of_readers_end_though_they_lifted_their_timeouts(
    conn: asyncpg.Connection, ops_pool: db.Pool, role_url: Callable[[str], str]
) -> None:
    """The ops worker ends them and records it; sessions of other roles stay."""
    text = await conn.fetchval("select pg_get_functiondef('ops.end_overdue_sessions()'::regprocedure)")
    await conn.execute(re.sub(r"interval '\d+ minutes?'", "interval '1 microsecond'", text))
    roles = (*READERS, "pulse_app")
    sessions = [await asyncpg.connect(role_url(role)) for role in roles]
    for session in sessions:
        await session.execute("set idle_in_transaction_session_timeout = 0; begin; select 1")
    assert await end_overdue_sessions(ops_pool) == len(READERS)
    for role, session in zip(roles, sessions, strict=True):
        if role in READERS:
            # The client's error depends on when it notices the end of the session.
            with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError)):
                await session.execute("select 1")
            session.terminate()
        else:
            await session.execute("select 1")
            await session.close()
    ended = await conn.fetch("select details->>'role' as role from audit_log where event_type = 'system.session_ended'")
    assert sorted(row["role"] for row in ended) == sorted(READERS)


async def test_roles_have_bounds(conn: asyncpg.Connection, role_url: Callable[[str], str]) -> None:
    """No session of a role stays in a transaction for ever or takes all connections of the server."""
    unbounded = await conn.fetch(
        "select rolname from pg_roles r where rolname like 'pulse\\_%' and rolcanlogin and rolname !~ '^pulse_test'"
        " and not exists (select from pg_db_role_setting s, unnest(setconfig) as setting"
        " where s.setrole = r.oid and setting ~ '^idle_in_transaction_session_timeout=.*[1-9]')"
    )
    assert unbounded == []
    limited = "select rolname from pg_roles where rolname = any ($1) and rolconnlimit between 1 and 20 order by 1"
    assert [row[0] for row in await conn.fetch(limited, list(READERS))] == sorted(READERS)


async def send_until_refused(connection: asyncpg.Connection) -> None:
    """Send notifications that each fill a page of the queue."""
    while True:
        await connection.execute("select pg_notify('anything', repeat('x', 7900) || i) from generate_series(1, 8) i")


@pytest.mark.slow
async def test_a_full_notify_queue_stops_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A reader fills the smallest queue that a server can have: readings are still taken, workers poll, and recover."""
    with EmbeddedPostgres(tmp_path / "server") as server:
        settings = await asyncpg.connect(server.url())
        await settings.execute("alter system set max_notify_queue_pages = 64")
        await settings.close()
    with EmbeddedPostgres(tmp_path / "server") as server:
        Migrator(server.url()).upgrade()
        app_url = server.url("pulse_app")
        pool = await db.open_pool(UiSettings(database_url=app_url))
        conn = await asyncpg.connect(
            server.url(), server_settings={"pulse.actor_type": "user", "pulse.actor_id": "tests"}
        )
        listening, sending = [await asyncpg.connect(server.url("pulse_exporter")) for _ in range(2)]
        async with evaluating(conn, pool, app_url) as worker:
            await worker.becomes("connected")
            await listening.execute("listen anything")
            await listening.execute("set idle_in_transaction_session_timeout = 0; begin; select 1")
            usage = "select pg_notification_queue_usage()"
            with pytest.raises(asyncpg.ProgramLimitExceededError):
                await send_until_refused(sending)
            assert await conn.fetchval(usage) > 0.9
            # A direct pg_notify fails at commit.
            with pytest.raises(asyncpg.ProgramLimitExceededError):
                async with conn.transaction():
                    await conn.execute(
                        "select pg_notify('anything', repeat('x', 7900) || i) from generate_series(1, 8) i"
                    )
            await worker.becomes("deaf")
            said = next(record.message for record in caplog.records if "listener is deaf" in record.message)
            assert f"pid {listening.get_server_pid()} of role pulse_exporter" in said
            await worker.handles(3)
            # The session that fills the queue ends itself or is ended; then notifications wake the loops again.
            text = await conn.fetchval("select pg_get_functiondef('ops.end_overdue_sessions()'::regprocedure)")
            await conn.execute(re.sub(r"interval '1 minute'", "interval '1 microsecond'", text))
            assert [row["role"] for row in await conn.fetch("select role from ops.end_overdue_sessions()")] == [
                "pulse_exporter"
            ]
            await until(lambda: conn.fetchval(f"{usage.replace('select', 'select 0 =')}"))
            await worker.becomes("connected")
            await worker.handles(2)
        listening.terminate()
        await sending.close()
        await conn.close()
        await pool.close()
