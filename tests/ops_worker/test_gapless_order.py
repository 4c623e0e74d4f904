"""One gapless order: every reader gets each committed event once, in the same order."""

import asyncio
import io
import random
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import orjson
import pytest

from services.cli.audit.evidence import Question
from services.cli.audit.export import write_export
from services.cli.audit.prove import find
from services.shared import db
from services.ui_iot.audit.trail import Place, Stretch, TrailReading
from services.ui_iot.resources.paging import LONGEST_CURSOR
from tests.support import seed
from tests.support.api_client import Api, open_api
from tests.support.audit_pages import REFERENCE
from tests.support.sealer import sealer_of
from tests.support.table_lock import WAITING
from tests.support.tail import served, tail
from tests.support.wait import until

SEED = 3
ROUNDS = 3
TYPE = "alert.opened"
ALL = Question(datetime(2000, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC), "acme")


@pytest.fixture
async def api(app_url: str, conn: asyncpg.Connection) -> AsyncIterator[Api]:
    await seed.tenant(conn)
    async with open_api(app_url) as opened:
        yield opened


async def write_rounds(url: str, number: int) -> set[str]:
    """Run one writer: some rows, a pause of up to half a second, a commit or not. Return the committed ids."""
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
    """Return the events that a repeated pager gets while events are written."""
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


async def follow(url: str, sealed: asyncio.Event) -> list[str]:
    """Return the events that `pulse audit tail` gets."""
    connection = await asyncpg.connect(url)
    await connection.set_type_codec(
        "jsonb",
        schema="pg_catalog",
        encoder=lambda value: orjson.dumps(value, default=str).decode(),
        decoder=orjson.loads,
    )
    reading = TrailReading(matching={"event_type": TYPE}, limit=13)
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


async def export(pool: db.Pool, question: Question) -> list[str]:
    """Return the events of one type that `pulse audit export` writes."""
    file = io.BytesIO()
    await write_export(pool, question, file)
    lines = [orjson.loads(line) for line in file.getvalue().splitlines()]
    events = [line["event"] for line in lines if line["type"] == "event"]
    return [event["event_id"] for event in events if event["event_type"] == TYPE]


async def keep_exporting(pool: db.Pool, sealed: asyncio.Event) -> list[list[str]]:
    """Export while events are written, and once more when all are sealed."""
    found = []
    while True:
        done = sealed.is_set()
        if await pool.fetchval("select exists (select from audit.checkpoints)"):
            found.append(await export(pool, ALL))
        if done:
            return found
        await asyncio.sleep(0)


async def open_writer(url: str, statement: str) -> asyncpg.Connection:
    """Return a connection whose transaction has written and stays open."""
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
    auditor_pool: db.Pool,
    tmp_path: Path,
    held: str,
) -> None:
    """64 writers commit late or not at all, next to a transaction that stays open."""
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
            reading.append(asyncio.create_task(follow(role_url("pulse_auditor"), sealed)))
            exporting = asyncio.create_task(keep_exporting(auditor_pool, sealed))
            sealing = asyncio.create_task(keep_sealing())
            writers = await asyncio.gather(*(write_rounds(database_url, number) for number in range(min(64, room))))
            committed = set().union(*writers)
            written.set()
            await sealing
            paged, followed = await asyncio.gather(*reading)
            exports = await exporting
            tailed = [event["event_id"] for event in await stream.wait_for(len(committed))]
    finally:
        await holder.close()
    assert len(committed) > 100
    expected = [str(row["event_id"]) for row in await conn.fetch(REFERENCE)]
    order = [event_id for event_id in expected if event_id in committed]
    assert len(order) == len(committed)
    assert tailed == order
    assert paged == order
    assert followed == order
    assert exports[-1] == order
    for exported in exports:
        assert exported == order[: len(exported)]


async def test_no_reader_misses_rows_that_move_while_it_reads(
    conn: asyncpg.Connection, app_pool: db.Pool, ops_pool: db.Pool, auditor_pool: db.Pool, tmp_path: Path
) -> None:
    """A month gets its partition late, while readers wait for the lock on the default partition."""
    sealer = sealer_of(tmp_path)
    month = Question(datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 2, 1, tzinfo=UTC), "acme")
    await conn.execute(
        "select audit.write(array(select audit.event('acme', $1, p_timestamp => '2026-01-15 08:00Z') from"
        " generate_series(1, 500)))",
        TYPE,
    )
    await sealer.seal(ops_pool)
    order = [str(row["event_id"]) for row in await conn.fetch(REFERENCE)]

    async def of_tenant(place: Place | None, matching: dict[str, str]) -> Stretch:
        async with db.read_as(app_pool, tenant_id="acme") as connection:
            return await TrailReading(matching=matching, limit=70).of_tenant(connection, place)

    async def of_all(place: Place | None, matching: dict[str, str]) -> Stretch:
        async with auditor_pool.acquire() as connection:
            return await TrailReading(matching=matching, limit=70).of_all(connection, place, tenant_id=None)

    async def read(stretch: Any, **matching: str) -> list[str]:
        found: list[str] = []
        place = None
        while True:
            got = await stretch(place, {"event_type": TYPE, **matching})
            found += [event["event_id"] for event in got.events]
            place = got.place
            if got.is_last:
                return found

    since = {"since": "2026-01-02T00:00:00Z", "until": "2026-01-31T00:00:00Z"}
    async with asyncio.TaskGroup() as readers, conn.transaction():
        moved = await conn.fetch("select * from ops.ensure_partitions() where rows_moved > 0")
        assert "audit_log_202601" in {row["partition_name"] for row in moved}
        waiting = [readers.create_task(read(of_tenant)), readers.create_task(read(of_tenant, **since))]
        waiting += [readers.create_task(read(of_all)), readers.create_task(export(auditor_pool, month))]
        await until(lambda: conn.fetchval(f"select ({WAITING}) = {len(waiting)}"))
    assert [task.result() == order for task in waiting] == [True] * len(waiting)
    event_id = UUID(order[0])
    assert (await find(auditor_pool, event_id, None)).event_id == event_id
