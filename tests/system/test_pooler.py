"""The whole stack behind PgBouncer in transaction mode, which drops LISTEN, prepared statements and sessions."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack

import asyncpg
import httpx
import orjson
import pytest

from services.local.stack.roster import ROLES
from services.shared.db import open_pool
from services.shared.settings import SERVICES, UiSettings
from tests.support import seed
from tests.support.chain import SECRET, SETTINGS, TOKEN, TRACE, is_signed, reading
from tests.support.evaluation import evaluating
from tests.support.pooler import SERVER_CONNECTIONS, Pooler, pooling
from tests.support.postgres_server import Server
from tests.support.processes import Running, free_port, ready_service, service
from tests.support.receiver import Receiver
from tests.support.wait import until

POLL_ONLY = {"listen_url": "off", "statement_cache_size": "0"}


@pytest.fixture
async def pooler(conn: asyncpg.Connection, pg_server: Server, require: Callable[[str], str]) -> AsyncIterator[Pooler]:
    """PgBouncer in front of the test's database."""
    async with pooling(require("pgbouncer"), pg_server, await conn.fetchval("select current_database()")) as running:
        yield running


@pytest.mark.slow
async def test_the_whole_chain_poll_only(conn: asyncpg.Connection, pooler: Pooler) -> None:
    """All six services behind it: a reading reaches the webhook, the trail is sealed, every view is served."""
    async with AsyncExitStack() as exits:
        sink = await exits.enter_async_context(Receiver())
        await seed.device(conn)
        await conn.execute("update devices set token_hash = $1", hashlib.sha256(TOKEN.encode()).digest())
        await seed.rule(conn)
        config = orjson.dumps({"url": sink.url + "/hook", "secret": SECRET}).decode()
        await seed.route(conn, await seed.channel(conn, config=config))
        ports = {name: str(free_port()) for name in SERVICES}
        targets = orjson.dumps({name: f"http://127.0.0.1:{port}" for name, port in ports.items()}).decode()
        stack: dict[str, Running] = {}

        async def start(name: str) -> None:
            settings = {**SETTINGS, **POLL_ONLY, "health_targets": targets, "port": ports[name]}
            module = name if name == "exporter" else f"services.{name}"
            url = pooler.url(ROLES[name])
            stack[name] = await exits.enter_async_context(ready_service(module, url, **settings))

        await asyncio.gather(*(start(name) for name in SERVICES if name != "ops_worker"))
        # It starts last and stops first, because it checks the others' health.
        await start("ops_worker")

        async with httpx.AsyncClient(trust_env=False, timeout=20) as client:
            answer = await client.post(
                f"{stack['ui_iot'].url}/ingest/v1/readings",
                json={"readings": [reading(95)]},
                headers={"authorization": f"Bearer {TOKEN}", "x-trace-id": TRACE},
            )
        assert (answer.status_code, answer.json()["accepted"]) == (202, 1)
        await until(lambda: sink.requests, seconds=30)
        assert is_signed(sink.requests[0])
        assert sink.requests[0].header("x-trace-id") == TRACE

        async def scraped(name: str) -> dict[str, str]:
            text = (await stack[name].get("/metrics")).text
            return dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))

        async def is_sealed() -> bool:
            return float((await scraped("exporter"))["pulse_audit_sealed_events_total"]) >= 10

        await until(is_sealed, seconds=30)
        shown = await scraped("exporter")
        assert shown["pulse_exporter_up"] == "1.0"
        assert {value for series, value in shown.items() if "view_success" in series} == {"1.0"}
        kinds = {row["event_type"] for row in await conn.fetch("select event_type from audit_log")}
        assert kinds >= {"device.authenticated", "device.readings_accepted", "alert.opened", "delivery.delivered"}

        for name in ("evaluator_iot", "dispatcher", "delivery_worker", "ops_worker"):
            shown = await scraped(name)
            assert shown[f'pulse_listener_state{{service="{name}",state="polling"}}'] == "1.0"
            assert {value for series, value in shown.items() if "worker_failed_passes_total" in series} == {"0.0"}
        # All services share the pooler's connections.
        sessions = await conn.fetch(
            "select usename, count(*) from pg_stat_activity"
            " where datname = current_database() and usename like 'pulse\\_%' group by usename"
        )
        assert {row["usename"] for row in sessions} >= set(ROLES.values()) - {"pulse_exporter"}
        assert max(row["count"] for row in sessions) <= SERVER_CONNECTIONS
        for name, running in reversed(stack.items()):
            assert await running.stop() == 0, name
            messages = [
                str(line.get("message")) for line in running.lines if line.get("level") not in ("debug", "info")
            ]
            known = ("no issuer of user tokens", "channel secrets are stored as plain text")
            assert [message for message in messages if not any(words in message for words in known)] == [], name


@pytest.mark.slow
async def test_an_isolation_that_only_the_role_can_have_is_asked_for(conn: asyncpg.Connection, pooler: Pooler) -> None:
    """No session behind the pooler keeps a SET, so a worker names the statement to run and starts after it."""
    database = await conn.fetchval("select current_database()")
    await conn.execute(f"alter database \"{database}\" set default_transaction_isolation = 'repeatable read'")
    await conn.execute(f"alter database \"{database}\" set timezone = 'Asia/Kathmandu'")
    # The pooler keeps the old sessions of its servers until they end.
    end_sessions = "select pg_terminate_backend(pid) from pg_stat_activity where usename = 'pulse_app'"
    await conn.execute(end_sessions)
    async with service("services.dispatcher", pooler.url("pulse_app"), **POLL_ONLY) as refused:
        assert await asyncio.wait_for(refused.process.wait(), 30) == 1
        await until(lambda: refused.lines)
    message = str(refused.lines[-1]["message"])
    assert message.startswith("cannot start: default_transaction_isolation is repeatable read")
    assert f'alter role "pulse_app" in database "{database}"' in message
    await conn.execute(message[message.index("alter role") :])
    try:
        pool = await open_pool(UiSettings(database_url=pooler.url("pulse_app"), statement_cache_size=0))
        await conn.execute(end_sessions)
        async with (
            ready_service("services.dispatcher", pooler.url("pulse_app"), **POLL_ONLY),
            pool.acquire() as one,
            pool.acquire() as two,
            one.transaction(),
            two.transaction(),
        ):
            for connection in (one, two):
                shown = [await connection.fetchval(f"show {name}") for name in ("timezone", "transaction_isolation")]
                assert shown == ["UTC", "read committed"]
        pool.terminate()
    finally:
        await conn.execute(f'alter role pulse_app in database "{database}" reset all')


async def test_a_listener_behind_it_is_deaf_and_polls(conn: asyncpg.Connection, pooler: Pooler) -> None:
    """LISTEN succeeds there but has no effect: no ping returns, so the worker reports deaf and polls each second."""
    url = pooler.url("pulse_app")
    pool = await open_pool(UiSettings(database_url=url, statement_cache_size=0))
    try:
        async with evaluating(conn, pool, url) as worker:
            await worker.handles(2)
            await until(lambda: (worker.sample("pulse_listener_restarts_total") or 0) >= 2, seconds=20)
            assert worker.states() == {"connected": 0, "deaf": 1, "polling": 0}
            await worker.handles(2)
            failed = worker.sample("pulse_worker_failed_passes_total", operation="evaluate")
            assert (failed, worker.states()["deaf"]) == (0, 1)
    finally:
        pool.terminate()
