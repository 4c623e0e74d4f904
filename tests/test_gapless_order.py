"""One gapless order: whoever reads the trail gets every committed event once, in the same order as everybody else."""

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import orjson
import pytest

from services.shared import db
from services.ui_iot.audit_trail import Place, Reading
from services.ui_iot.paging import LONGEST_CURSOR
from tests import seed
from tests.api_client import Api, open_api
from tests.sealing import sealer_of
from tests.tailing import served, tail
from tests.test_audit_reading import REFERENCE

SEED = 3
ROUNDS = 3
TYPE = "alert.opened"


@pytest.fixture
async def api(app_url: str, conn: asyncpg.Connection) -> AsyncIterator[Api]:
    await seed.tenant(conn)
    async with open_api(app_url) as opened:
        yield opened


async def write_rounds(url: str, number: int) -> set[str]:
    """One writer's transactions: some rows, a pause of up to half a second, a commit or not. The ids it committed."""
    chance = random.Random(SEED * 1000 + number)
    connection = await asyncpg.connect(url)
    committed: set[str] = set()
    try:
        for _ in range(ROUNDS):
            transaction = connection.transaction()
            await transaction.start()
            rows = await connection.fetch(
                "with made as (select core.uuid_v7() as id from generate_series(1, $1)), written as materialized ("
                " select audit.write(array(select audit.event('acme', $2, p_event_id => id) from made)))"
                " select made.id::text from made, written",
                chance.randint(1, 5),
                TYPE,
            )
            await connection.execute("select pg_sleep($1)", chance.random() / 2)
            if chance.random() < 0.8:
                await transaction.commit()
                committed |= {row["id"] for row in rows}
            else:
                await transaction.rollback()
    finally:
        await connection.close()
    return committed


async def page_through(api: Api, sealed: asyncio.Event) -> list[str]:
    """What a pager gets that comes again and again while events are written."""
    found: list[str] = []
    cursor = None
    chance = random.Random(SEED)
    while True:
        done = sealed.is_set()
        query = f"event_type={TYPE}&order=oldest&limit={chance.randint(1, 40)}" + (
            f"&cursor={cursor}" if cursor else ""
        )
        page = (await api.call("GET", f"/api/v1/audit/events?{query}")).json()
        found += [item["event_id"] for item in page["items"]]
        cursor = page["next_cursor"] or page["tail_cursor"]
        assert len(cursor) <= LONGEST_CURSOR
        if done and page["next_cursor"] is None:
            return found


async def export(url: str, sealed: asyncio.Event) -> list[str]:
    """What the auditor's reader gets, which the command line shows."""
    connection = await asyncpg.connect(url)
    await connection.set_type_codec(
        "jsonb",
        schema="pg_catalog",
        encoder=lambda value: orjson.dumps(value, default=str).decode(),
        decoder=orjson.loads,
    )
    reading = Reading(matching={"event_type": TYPE}, limit=13)
    found: list[str] = []
    place: Place | None = None
    while True:
        done = sealed.is_set()
        stretch = await reading.of_all(connection, place, tenant_id=None)
        found += [event["event_id"] for event in stretch.events]
        place = stretch.place
        if done and stretch.is_last:
            await connection.close()
            return found


async def open_writer(url: str, statement: str) -> asyncpg.Connection:
    """A connection with a transaction that has written and does not end."""
    connection = await asyncpg.connect(url)
    await connection.execute("begin")
    await connection.execute(statement)
    return connection


@pytest.mark.parametrize("held", ["another database", "the same database"])
async def test_every_reader_gets_every_committed_event_once_in_one_order(
    api: Api,
    conn: asyncpg.Connection,
    ops_pool: db.Pool,
    database_url: str,
    empty_url: str,
    role_url: Any,
    tmp_path: Path,
    held: str,
) -> None:
    """64 writers that commit late or not at all, and a transaction that stays open all the while."""
    room = int(await conn.fetchval("show max_connections")) - 30
    holder = (
        await open_writer(empty_url, "create table written (n int)")
        if held == "another database"
        else await open_writer(database_url, f"select audit.write(array[audit.event('acme', '{TYPE}')])")
    )
    sealer = sealer_of(tmp_path)
    written, sealed = asyncio.Event(), asyncio.Event()

    async def keep_sealing() -> None:
        while not sealed.is_set():
            done = written.is_set()
            await sealer.seal(ops_pool)
            if done:
                sealed.set()
            await asyncio.sleep(0)

    try:
        async with served(api) as url, tail(url, f"start=beginning&event_type={TYPE}") as stream:
            reading = [asyncio.create_task(page_through(api, sealed))]
            reading.append(asyncio.create_task(export(role_url("pulse_auditor"), sealed)))
            sealing = asyncio.create_task(keep_sealing())
            writers = await asyncio.gather(*(write_rounds(database_url, number) for number in range(min(64, room))))
            committed = set().union(*writers)
            written.set()
            await sealing
            paged, exported = await asyncio.gather(*reading)
            tailed = [event["event_id"] for event in await stream.wait_for(len(committed))]
    finally:
        await holder.close()
    assert len(committed) > 100
    expected = [str(row["event_id"]) for row in await conn.fetch(REFERENCE)]
    order = [event_id for event_id in expected if event_id in committed]
    assert len(order) == len(committed)
    assert tailed == order
    assert paged == order
    assert exported == order
