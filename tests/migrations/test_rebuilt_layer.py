"""A migration replaces functions and types under running services; interrupted statements are repeated and succeed."""

import asyncio
import contextlib
from collections.abc import Callable
from functools import partial
from itertools import count
from typing import Any

import asyncpg
import pytest
from alembic.util import CommandError

from services.shared import db
from tests.support import seed
from tests.support.api_client import Api, open_api
from tests.support.evaluation import evaluating
from tests.support.migrator import Migrator
from tests.support.wait import until

MAKE = """
create schema layer_of_test;
create type layer_of_test.answer as ({columns});
create function layer_of_test.ask(p layer_of_test.answer) returns setof layer_of_test.answer
language sql as $$ select p.* $$;
grant usage on schema layer_of_test to pulse_app;
grant execute on function layer_of_test.ask to pulse_app;
"""
ASK = "select * from layer_of_test.ask($1)"


@pytest.fixture
def replace(conn: asyncpg.Connection) -> Callable[[str], Any]:
    """Replaces a small layer in one transaction, as a migration does."""

    async def make(columns: str) -> None:
        async with conn.transaction():
            await conn.execute("drop schema if exists layer_of_test cascade")
            await conn.execute(MAKE.format(columns=columns))

    return make


async def test_a_statement_that_knew_the_old_types_succeeds_at_the_second_try(
    app_pool: db.Pool, replace: Callable[[str], Any]
) -> None:
    await replace("a int, b text")
    assert tuple(await app_pool.fetchrow(ASK, (1, "x"))) == (1, "x")
    await replace("a int, b text, c int")
    with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError)):
        await app_pool.fetchrow(ASK, (1, "x", 2))
    await replace("a int, b text")
    tried = 0

    async def work() -> Any:
        nonlocal tried
        tried += 1
        async with app_pool.acquire() as connection, connection.transaction():
            return tuple(await connection.fetchrow(ASK, (1, "y")))

    await db.retried(app_pool, work)
    await replace("a int, b text")
    before = tried
    assert await db.retried(app_pool, work) == (1, "y")
    assert tried - before == 2


async def test_what_is_gone_for_good_fails_after_the_second_try(app_pool: db.Pool) -> None:
    tried = 0

    async def work() -> Any:
        nonlocal tried
        tried += 1
        return await app_pool.fetchval("select core.no_such_function()")

    with pytest.raises(asyncpg.UndefinedFunctionError):
        await db.retried(app_pool, work)
    assert tried == 2
    with pytest.raises(asyncpg.DivisionByZeroError):
        await db.retried(app_pool, lambda: app_pool.fetchval("select 1 / 0"))


async def rebuild(url: str) -> None:
    """Rebuild the layer while a test runs. It gives way to the services, so repeat it until it succeeds."""
    while True:
        with contextlib.suppress(CommandError):
            await asyncio.to_thread(Migrator(url).rebuild)
            return


@pytest.mark.slow
async def test_passes_and_requests_go_on_beside_a_migration(
    conn: asyncpg.Connection, database_url: str, app_url: str, app_pool: db.Pool
) -> None:
    await seed.tenant(conn)
    async with open_api(app_url) as api, evaluating(conn, app_pool, app_url) as worker:

        async def passed(before: float) -> bool:
            await conn.execute("select pg_notify('pulse_evaluator', '')")
            return (worker.sample("pulse_worker_passes_total", operation="evaluate") or 0) > before

        numbers = count()
        for _ in range(3):
            migration = asyncio.create_task(rebuild(database_url))
            while not migration.done():
                await ask_everything(api, next(numbers))
                await conn.execute("select pg_notify('pulse_evaluator', '')")
            await migration
            await ask_everything(api, next(numbers))
            await until(partial(passed, worker.sample("pulse_worker_passes_total", operation="evaluate") or 0))
        assert worker.sample("pulse_worker_failed_passes_total", operation="evaluate") == 0


async def ask_everything(api: Api, number: int) -> None:
    """Send requests of every kind, none of which may fail."""
    made = await api.call("POST", "/api/v1/devices", json={"device_id": f"d-{number}", "name": "D"})
    assert made.status_code == 201, made.text
    reading = {"readings": [{"device_id": f"d-{number}", "metric": "heat", "value": 1.0}]}
    assert (await api.call("POST", "/ingest/v1/readings", json=reading, role="operator")).status_code in (202, 403)
    for path in ("/api/v1/devices", f"/api/v1/devices/d-{number}", "/api/v1/alerts", "/api/v1/deliveries"):
        response = await api.call("GET", path)
        assert response.status_code == 200, (path, response.text)
    assert (await api.call("GET", "/api/v1/audit/events", role="auditor")).status_code == 200
    changed = await api.call("PATCH", f"/api/v1/devices/d-{number}", json={"name": "E"})
    assert changed.status_code == 200, changed.text
