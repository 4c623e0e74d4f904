"""The audit trail in pages: sealed order, each event once, at a cost independent of the trail's size."""

import itertools
import random
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import orjson
import pytest

from services.shared import db
from services.ui_iot.audit.trail import place_of, read_place, write_place
from services.ui_iot.http.problems import Unprocessable
from tests.support import seed
from tests.support.api_client import Api, open_api
from tests.support.api_pages import read_all
from tests.support.audit_pages import REFERENCE, read, write
from tests.support.plans import rows_touched
from tests.support.sealer import Seal, sealer_of
from tests.support.wait import until

NOWHERE = "00000000-0000-0000-0000-000000000000"


@pytest.fixture
async def api(app_url: str, conn: asyncpg.Connection) -> AsyncIterator[Api]:
    await seed.tenant(conn)
    async with open_api(app_url, audit_read_rows_per_window=0) as opened:
        yield opened


async def walk(conn: asyncpg.Connection, **rest: Any) -> list[str]:
    """Return the ids of all events, page after page."""
    found: list[str] = []
    place = None
    for _ in range(2000):
        page = await read(conn, place, **rest)
        found += [event["event_id"] for event in page["events"]]
        place = page["place"]
        if page["is_last"]:
            return found
    raise AssertionError("the pages never end")


@pytest.fixture
async def history(
    conn: asyncpg.Connection, database_url: str, ops_pool: db.Pool, tmp_path: Path
) -> list[dict[str, str]]:
    """A trail of many blocks with late commits, old timestamps, two months in one pass, and one large block."""
    chance = random.Random(11)
    sealer = sealer_of(tmp_path)
    late: list[tuple[asyncpg.Connection, Any]] = []
    for number in range(40):
        if chance.random() < 0.3:
            connection = await asyncpg.connect(database_url)
            transaction = connection.transaction()
            await transaction.start()
            await write(connection, chance.randint(1, 5), tenant_id=chance.choice(("acme", "other")))
            late.append((connection, transaction))
        for _ in range(60 if number == 20 else chance.randint(0, 3)):
            ago = chance.choice(("0", "0", "0", "1 hour", "70 days"))
            await write(
                conn,
                chance.randint(1, 6),
                tenant_id=chance.choice(("acme", "other")),
                ago=ago,
                kind=chance.choice("ab"),
            )
        if late and chance.random() < 0.3:
            connection, transaction = late.pop(chance.randrange(len(late)))
            await (transaction.commit() if chance.random() < 0.8 else transaction.rollback())
            await connection.close()
        await sealer.seal(ops_pool)
    for connection, transaction in late:
        await transaction.rollback()
        await connection.close()
    return [dict(row) for row in await conn.fetch(REFERENCE)]


async def test_every_way_of_paging_gives_the_one_order(conn: asyncpg.Connection, history: list[dict[str, str]]) -> None:
    """The test varies direction, page size, tenant and cuts within blocks and transactions."""
    assert len(history) == await conn.fetchval("select count(*) from audit_log") > 200
    assert await conn.fetchval("select max(row_count) from audit.blocks") > 100
    for tenant in (None, "acme", "other", "nobody"):
        expected = [row["event_id"] for row in history if tenant in (None, row["tenant_id"])]
        for limit in (1, 7, 1000) if tenant == "other" else (2, 50):
            assert await walk(conn, newest=False, limit=limit, tenant=tenant) == expected, (tenant, limit)
            assert await walk(conn, newest=True, limit=limit, tenant=tenant) == expected[::-1], (tenant, limit)


def keeps(row: Any, values: dict[str, str], since: datetime | None = None, until: datetime | None = None) -> bool:
    """Return whether a filter keeps a row."""
    return (
        all(row[name] == value for name, value in values.items())
        and (since is None or row["timestamp"] >= since)
        and (until is None or row["timestamp"] < until)
    )


@pytest.mark.slow
async def test_a_filter_takes_away_and_changes_no_order(
    conn: asyncpg.Connection, history: list[dict[str, str]]
) -> None:
    """Filters with and without an index keep the order."""
    rows = {str(row["event_id"]): row for row in await conn.fetch("select * from audit_log")}
    now = await conn.fetchval("select now()")
    for matching in (
        {"entity_type": "a", "entity_id": "2"},
        {"entity_id": "3"},
        {"entity_type": "b"},
        {"event_type": "alert.opened"},
        {"category": "auth"},
        {"since": "2 hours"},
        {"until": "2 hours", "entity_type": "a"},
    ):
        bounds = {
            name: now - await conn.fetchval("select $1::text::interval", value)
            for name, value in matching.items()
            if name in ("since", "until")
        }
        values = {name: value for name, value in matching.items() if name not in bounds}
        expected = [
            row["event_id"]
            for row in history
            if row["tenant_id"] == "acme" and keeps(rows[row["event_id"]], values, **bounds)
        ]
        given = {**matching, **{name: time.isoformat() for name, time in bounds.items()}}
        for limit in (1, 3, 50):
            assert await walk(conn, newest=True, limit=limit, tenant="acme", **given) == expected[::-1], matching
            assert await walk(conn, newest=False, limit=limit, tenant="acme", **given) == expected, matching


async def test_a_reader_at_the_end_goes_on_with_what_is_sealed_next(conn: asyncpg.Connection, seal: Seal) -> None:
    await write(conn, 3)
    await seal()
    page = await read(conn, newest=False)
    assert (len(page["events"]), page["is_last"]) == (3, True)
    assert page["place"] == page["end"]
    await write(conn, 2)
    assert (await read(conn, page["place"], newest=False))["events"] == []
    await seal()
    following = await read(conn, page["place"], newest=False)
    assert [event["entity_id"] for event in following["events"]] == ["1", "2"]
    assert await read(conn, page["end"], newest=True) == {
        **await read(conn, page["end"]),
        "events": page["events"][::-1],
    }


async def test_a_trail_without_a_block_is_empty(conn: asyncpg.Connection) -> None:
    await write(conn, 3)
    for newest in (True, False):
        page = await read(conn, newest=newest)
        assert (page["events"], page["is_last"], page["sealed_at"]) == ([], True, None)


@pytest.fixture
async def vast(conn: asyncpg.Connection) -> None:
    """200,000 rows in 20,000 transactions and 4,000 blocks. Half belong to acme, a thousandth to another tenant."""
    await conn.execute("select ops.ensure_partitions()")
    await conn.execute(
        "insert into audit_log (tenant_id, timestamp, event_id, event_type, category, severity, action, message,"
        " source_service, entity_type, entity_id, xid)"
        " select case when n % 1000 = 1 then 'small' when n % 2 = 0 then 'acme' else 'other' end,"
        " date_trunc('month', now()) + n * interval '1 second', gen_random_uuid(), 'alert.opened', 'alert',"
        " case when n % 5000 = 2 then 'critical' else 'info' end, 'opened', 'm', 's', 'alert', (n % 1000)::text,"
        " (10 + n / 10)::text::xid8 from generate_series(0, 199999) n"
    )
    await make_blocks(conn, rows=50)
    await conn.execute("analyze audit_log, audit.blocks")


async def make_blocks(conn: asyncpg.Connection, *, rows: int) -> None:
    """Create blocks over the rows of vast as the sealer would, without hashes, which no reader checks."""
    await conn.execute("truncate audit.blocks")
    await conn.execute(
        "insert into audit.blocks select k, date_trunc('month', now())::date,"
        " format('%1$s:%1$s:', 10 + $1 * k / 10)::pg_snapshot,"
        " format('%1$s:%1$s:', 10 + $1 * (k + 1) / 10)::pg_snapshot,"
        " (10 + $1 * (k + 1) / 10)::text::xid8, $1 * k, $1, date_trunc('month', now()) + $1 * k * interval '1 second',"
        " date_trunc('month', now()) + ($1 * (k + 1) - 1) * interval '1 second', sha256('a'), sha256('b'), now(), 1"
        " from generate_series(0, 200000 / $1 - 1) k",
        rows,
    )


async def test_a_page_reads_a_page(conn: asyncpg.Connection, vast: None) -> None:
    """The test reads both ends and the middle of thousands of small blocks and of a single large one."""
    for rows in (50, 200_000):
        await make_blocks(conn, rows=rows)
        middle = f'[{100_000 // rows}, "10010", "-infinity", "", "{NOWHERE}"]'
        for tenant, place, newest in itertools.product(("'acme'", "null"), ("null", f"'{middle}'"), ("true", "false")):
            touched = await rows_touched(conn, f"select audit._read_sealed({tenant}, '{{}}', {place}, {newest}, 50)")
            assert 50 <= touched["audit_log"] <= 1000, (rows, tenant, place, newest, touched["audit_log"])
            assert touched["blocks"] <= 60, (rows, tenant, place, newest, touched["blocks"])


@pytest.mark.slow
async def test_what_an_index_finds_is_found_at_once(conn: asyncpg.Connection, vast: None) -> None:
    """A small tenant or one entity's history needs no empty pages, even in a large trail."""
    entity = {"entity_type": "alert", "entity_id": "4"}
    cases: list[tuple[str, dict[str, Any], int]] = [
        ("small", {}, 200),
        ("nobody", {}, 0),
        ("acme", entity, 200),
        ("acme", {"event_type": "x"}, 0),
    ]
    for tenant, matching, count in cases:
        page = await read(conn, tenant=tenant, limit=200, **matching)
        assert (len(page["events"]), page["is_last"]) == (count, True)
        text = orjson.dumps(matching).decode()
        touched = await rows_touched(conn, f"select audit._read_sealed('{tenant}', '{text}', null, true, 200)")
        assert touched["audit_log"] <= 3000, (tenant, matching, touched["audit_log"])


async def test_a_time_long_ago_is_reached_at_once(conn: asyncpg.Connection, vast: None) -> None:
    """The query skips thousands of blocks of later months."""
    await conn.execute(
        "insert into audit.blocks select 4000 + k, (date_trunc('month', now()) + '1 month')::date, '20010:20010:',"
        " '20010:20010:', '20010', 200000 + k, 1, date_trunc('month', now()) + '35 days',"
        " date_trunc('month', now()) + '35 days', sha256('a'), sha256('b'), now(), 1 from generate_series(0, 19999) k"
    )
    start = await conn.fetchval("select date_trunc('month', now())")
    until_text = (start + timedelta(days=20)).isoformat()
    page = await read(conn, tenant="acme", until=until_text)
    assert len(page["events"]) == 50
    touched = await rows_touched(
        conn, f"select audit._read_sealed('acme', '{{\"until\": \"{until_text}\"}}', null, true, 50)"
    )
    assert touched["blocks"] <= 100, touched["blocks"]
    assert touched["audit_log"] <= 1000, touched["audit_log"]


@pytest.mark.slow
async def test_a_search_without_an_index_ends_in_time_and_goes_on(conn: asyncpg.Connection, vast: None) -> None:
    """Short pages with a cursor give every event once in total."""
    found, places = [], []
    place = None
    while True:
        text = await conn.fetchval(
            "select audit._read_sealed('acme', '{\"severity\": \"critical\"}', $1::text::jsonb, true, 50, '0')::text",
            None if place is None else orjson.dumps(place).decode(),
        )
        page = orjson.loads(text)
        found += [event["event_id"] for event in page["events"]]
        place = page["place"]
        places.append(tuple(place))
        if page["is_last"]:
            break
    assert len(places) == len(set(places)) > 100
    assert found == [
        str(row["event_id"])
        for row in await conn.fetch(
            "select event_id from audit_log where severity = 'critical' order by timestamp desc"
        )
    ]


async def test_pages_show_what_is_sealed_and_say_how_far_that_is(
    api: Api, conn: asyncpg.Connection, seal: Seal
) -> None:
    await write(conn, 3)
    path = "/api/v1/audit/events?event_type=alert.opened"
    assert (await api.call("GET", path)).json()["items"] == []
    await seal()
    page = (await api.call("GET", path)).json()
    assert [item["entity_id"] for item in page["items"]] == ["3", "2", "1"]
    assert page["sealed_at"] is not None
    oldest = (await api.call("GET", path + "&order=oldest&limit=2")).json()
    assert [item["entity_id"] for item in oldest["items"]] == ["1", "2"]
    rest = (await api.call("GET", path + f"&order=oldest&cursor={oldest['next_cursor']}")).json()
    assert [item["entity_id"] for item in rest["items"]] == ["3"]
    assert rest["next_cursor"] is None
    assert {item["block_no"] for item in page["items"]} == {0}


async def test_each_page_read_is_one_event_with_its_filter_and_count(
    api: Api, conn: asyncpg.Connection, seal: Seal
) -> None:
    """The event is independent of the page's rows and omits the cursor."""
    await write(conn, 5)
    await seal()
    assert len(await read_all(api, "audit/events", "limit=2&event_type=alert.opened", role="auditor")) == 5

    async def reads() -> list[Any]:
        query = "select actor_id, tenant_id, details::text d from audit_log where event_type = 'audit.read'"
        found = await conn.fetch(query)
        return found if len(found) >= 3 else []

    rows = await until(reads)
    assert [(row["actor_id"], row["tenant_id"]) for row in rows] == [("auditor@acme", "acme")] * 3
    details = [orjson.loads(row["d"]) for row in rows]
    assert sorted(detail["events"] for detail in details) == [1, 2, 2]
    assert details[0]["filter"] == {"limit": 2, "event_type": "alert.opened", "order": "newest"}


async def test_a_cursor_shows_no_other_tenant(api: Api, conn: asyncpg.Connection, seal: Seal) -> None:
    """A cursor grants no access. A forged one is refused or shows the tenant's own rows."""
    for _ in range(5):
        await write(conn, 2, tenant_id="acme")
        await write(conn, 2, tenant_id="other")
    await seal()
    cursor = (await api.call("GET", "/api/v1/audit/events?limit=3", tenant="other")).json()["next_cursor"]
    for order in ("newest", "oldest"):
        response = await api.call("GET", f"/api/v1/audit/events?order={order}&cursor={cursor}")
        assert response.status_code == 200, response.text
        ids = [item["event_id"] for item in response.json()["items"]]
        assert await conn.fetchval(
            "select count(*) from audit_log where event_id = any($1) and tenant_id = 'acme'", ids
        ) == len(ids)
    place = read_place(cursor)
    for changed in ([99, *place[1:]], [0, "x", *place[2:]], [*place[:2], "x", *place[3:]], place[:4]):
        wrong = write_place(changed)
        assert (await api.call("GET", f"/api/v1/audit/events?cursor={wrong}")).status_code == 422, changed


def test_a_place_survives_its_cursor() -> None:
    event = {
        "block_no": 7,
        "xid": str(2**63),
        "timestamp": "2026-01-05T12:00:00.000001+00:00",
        "tenant_id": "acme'%é",
        "event_id": "0190b5a2-7c3e-7d7a-9f5b-0c8f3d2a1b4c",
    }
    assert orjson.loads(orjson.dumps(read_place(write_place(place_of(event))), default=str)) == list(event.values())
    with pytest.raises(Unprocessable):
        read_place(write_place([7, str(2**64), *list(event.values())[2:]]))


@pytest.mark.parametrize(
    "call",
    [
        "audit.read_all_events(null, '{}', null, true, 1)",
        "audit.count_events('1:1:')",
        "audit.find_event('0190b5a2-7c3e-7d7a-9f5b-0c8f3d2a1b4c')",
    ],
)
async def test_an_old_snapshot_is_no_ground_to_read_on(auditor_pool: db.Pool, call: str) -> None:
    """A snapshot older than a move of rows would miss them. In read committed each statement has its own."""
    async with auditor_pool.acquire() as connection:
        await connection.execute(f"select {call}")
        async with connection.transaction(isolation="repeatable_read"):
            with pytest.raises(asyncpg.PostgresError, match="call it in read committed") as refused:
                await connection.execute(f"select {call}")
    assert refused.value.sqlstate == "PU422"
