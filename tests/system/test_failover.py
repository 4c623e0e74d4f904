"""The primary moves: writers follow it, readers see no stale data, and readiness is correct in between."""

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import asyncpg
import httpx
import pytest

from services.shared import db
from services.shared.settings import ExporterSettings, UiSettings
from tests.support import seed
from tests.support.api_client import Api, open_api
from tests.support.migrator import Migrator
from tests.support.processes import Running, ready_service, service
from tests.support.replicas import Node, Switch, pair
from tests.support.wait import until

pytestmark = pytest.mark.slow

DEVICE = {"device_id": "pump-1", "name": "Pump 1"}


@pytest.fixture
async def servers() -> AsyncIterator[tuple[Node, Node]]:
    """A migrated primary with a tenant, and its standby, which has all data."""
    async with pair() as (first, second):
        await first.execute("create database pulse")
        await asyncio.to_thread(Migrator(first.url(database="pulse")).upgrade)
        await first.execute("select ingest.create_tenant('acme', 'Acme')", database="pulse")
        await caught_up(first, second)
        yield first, second


async def caught_up(first: Node, second: Node) -> None:
    """Return when the standby has the primary's writes."""
    source, target = await asyncpg.connect(first.url()), await asyncpg.connect(second.url())
    try:
        place = await source.fetchval("select pg_current_wal_lsn()")
        await until(lambda: target.fetchval("select pg_last_wal_replay_lsn() >= $1", place), seconds=30)
    finally:
        await source.close()
        await target.close()


async def post(api: Api, device_id: str) -> int:
    """Make a device and return the status."""
    return int((await api.call("POST", "/api/v1/devices", json={**DEVICE, "device_id": device_id})).status_code)


async def readyz(api: Api) -> tuple[int, str]:
    """Return the answer of /readyz."""
    response = await api.client.get("/readyz")
    return response.status_code, response.text.strip()


async def test_behind_a_proxy_the_api_follows_the_primary(servers: tuple[Node, Node]) -> None:
    first, second = servers
    async with Switch(first.port) as switch, open_api(switch.url("pulse_app"), command_timeout_seconds=3) as api:
        assert await post(api, "before") == 201
        await caught_up(first, second)
        # The proxy leads to the standby before it is promoted, as DNS and health checks do.
        switch.target = second.port
        await first.stop(signal.SIGQUIT)
        await until(lambda: is_refused(api), seconds=30)
        assert (await api.call("GET", "/api/v1/devices")).status_code == 503
        assert (await readyz(api))[0] == 503
        await second.promote()
        await until(lambda: is_made(api), seconds=30)
        shown = await api.call("GET", "/api/v1/devices")
        assert {item["device_id"] for item in shown.json()["items"]} == {"before", "after"}
        assert await readyz(api) == (200, "ok")
        # Events of requests accepted meanwhile were spooled and are stored now.
        reader = await asyncpg.connect(second.url(database="pulse"))
        try:
            query = "select true from audit_log where event_type = 'auth.login_success' having count(*) >= 3"
            await until(lambda: reader.fetchval(query), seconds=30)
        finally:
            await reader.close()


async def is_refused(api: Api) -> bool:
    """Return whether a change is answered by a complete 503; any other fault fails."""
    response = await api.call("POST", "/api/v1/devices", json={**DEVICE, "device_id": "between"})
    assert response.status_code == 503, response.text
    assert response.headers["retry-after"]
    assert response.headers["content-type"] == "application/problem+json"
    return "standby or read-only" in response.text and "standby or read-only" in (await readyz(api))[1]


async def is_made(api: Api) -> bool:
    """Return whether a change succeeds again; a refused one left nothing behind."""
    status = await post(api, "after")
    assert status in (201, 503)
    return status == 201


async def test_a_server_that_becomes_read_only_is_left(servers: tuple[Node, Node]) -> None:
    """A fenced old primary keeps its connections open, and so does a primary that its provider made read-only."""
    first, second = servers
    async with Switch(first.port) as switch, open_api(switch.url("pulse_app")) as api:
        assert await post(api, "before") == 201
        await caught_up(first, second)
        await first.execute("alter system set default_transaction_read_only = on", "select pg_reload_conf()")
        await until(lambda: is_read_only(api), seconds=30)
        await second.promote()
        switch.target = second.port
        await until(lambda: is_made(api), seconds=30)
        async with AsyncExitStack() as taken:
            held = [await taken.enter_async_context(pool_of(api).acquire()) for _ in range(4)]
            assert {connection.get_settings().default_transaction_read_only for connection in held} == {"off"}


def pool_of(api: Api) -> db.Pool:
    """Return the API's pool."""
    assert api.process.pool is not None
    return api.process.pool


async def is_read_only(api: Api) -> bool:
    """Return whether readiness reports it; a change is then refused, not lost."""
    status, said = await readyz(api)
    if status == 200:
        return False
    assert "read-only" in said
    assert await post(api, "between") == 503
    return True


async def test_of_several_hosts_the_one_that_takes_changes_is_used(servers: tuple[Node, Node]) -> None:
    """A first host that accepts and stays silent costs its own limit, once; a standby costs nothing."""
    first, second = servers
    async with Switch(0) as silent:
        silent.target = None
        hosts = f"127.0.0.1:{silent.port},127.0.0.1:{second.port},127.0.0.1:{first.port}"
        url = f"postgresql://pulse_app@{hosts}/pulse?connect_timeout=1"
        async with open_api(url, command_timeout_seconds=2) as api:
            assert await post(api, "before") == 201
            asked = silent.accepted
            async with AsyncExitStack() as taken:
                for _ in range(4):
                    connection = await taken.enter_async_context(pool_of(api).acquire(timeout=10))
                    assert not await connection.fetchval("select pg_is_in_recovery()")
            assert silent.accepted == asked
            await caught_up(first, second)
            first.send(signal.SIGSTOP)
            await second.promote()
            await until(lambda: is_made(api), seconds=60)
            assert await readyz(api) == (200, "ok")
        # Commands and the exporter, which may read a standby, connect in the same way.
        pool = await db.open_pool(UiSettings(database_url=url + "&target_session_attrs=primary", pool_min_size=0))
        assert not await pool.fetchval("select pg_is_in_recovery()")
        await db.close_pool(pool)


async def test_a_standby_is_recognized_where_transactions_are_serializable(servers: tuple[Node, Node]) -> None:
    """A serializable standby refuses every query: a writer tries the next host, a reader of standbys may use it."""
    first, second = servers
    await first.execute("alter database pulse set default_transaction_isolation = 'serializable'")
    await caught_up(first, second)
    hosts = f"127.0.0.1:{second.port},127.0.0.1:{first.port}"
    for attrs, is_standby in (("", False), ("?target_session_attrs=standby", True)):
        url = f"postgresql://pulse_app@{hosts}/pulse{attrs}"
        pool = await db.open_pool(UiSettings(database_url=url, pool_min_size=0))
        assert await pool.fetchval("select pg_is_in_recovery()") == is_standby
        await db.close_pool(pool)


async def test_the_exporter_reads_a_standby(servers: tuple[Node, Node]) -> None:
    """Its role is read-only, and it requests no more than it needs."""
    _first, second = servers
    async with ready_service("exporter", second.url("pulse_exporter", "pulse")) as exporter:
        scraped = (await exporter.get("/metrics")).text
        assert "pulse_exporter_up 1.0" in scraped
    hosts = f"127.0.0.1:1,127.0.0.1:{second.port}"
    async with ready_service("exporter", f"postgresql://pulse_exporter@{hosts}/pulse") as exporter:
        assert "pulse_exporter_up 1.0" in (await exporter.get("/metrics")).text
    assert ExporterSettings.session_attrs(2) == "any"


async def test_workers_go_on(servers: tuple[Node, Node]) -> None:
    """A worker whose server is a standby is not ready, reports why, and works after the promotion."""
    first, second = servers
    url = f"postgresql://pulse_app@127.0.0.1:{first.port},127.0.0.1:{second.port}/pulse"
    async with ready_service("services.evaluator_iot", url) as worker:
        await caught_up(first, second)
        await first.stop(signal.SIGQUIT)

        async def is_away() -> bool:
            response = await worker.get("/readyz")
            return response.status_code == 503 and "standby or read-only" in response.text

        await until(is_away, seconds=30)
        async with service("services.dispatcher", second.url("pulse_app", "pulse")) as late:
            await until(lambda: says(late, "starting: The database takes no changes now"), seconds=30)
            await second.promote()
            await until(worker.is_ready, seconds=30)
            await until(late.is_ready, seconds=60)
        conn = await asyncpg.connect(
            second.url(database="pulse"), server_settings={"pulse.actor_type": "user", "pulse.actor_id": "t"}
        )
        try:
            await seed.device(conn)
            await seed.rule(conn)
            await conn.execute(
                "select ingest.record_readings('acme', array['boiler-1'], array['temperature'], array[now()],"
                " array[99], repeat('a', 32))"
            )
            await until(lambda: conn.fetchval("select true from evaluator.inbox having count(*) = 0"), seconds=30)
        finally:
            await conn.close()
        assert await worker.stop() == 0
        assert [line for line in worker.lines if line.get("exc_info") or line.get("exception")] == []


async def says(running: Running, text: str) -> bool:
    """Return whether the worker's readiness reports the text."""
    try:
        return text in (await running.get("/readyz")).text
    except httpx.TransportError:
        return False
