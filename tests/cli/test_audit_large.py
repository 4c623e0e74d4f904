"""Large values in the audit trail are truncated and never block a reader."""

from typing import Any

import asyncpg
import orjson
import pytest

from tests.support.audit_pages import read
from tests.support.sealer import Seal
from tests.support.tracked_tables import events, make_table

MEGABYTE = 1_000_000


@pytest.mark.parametrize("newest", [True, False])
async def test_a_page_ends_by_its_bytes(conn: asyncpg.Connection, seal: Seal, newest: bool) -> None:
    """60 MB of events, as an earlier release may have stored them, are read completely, each once."""
    await conn.execute(
        "insert into audit_log (tenant_id, timestamp, event_id, event_type, category, action, message, source_service,"
        " details) select 'acme', now(), core.uuid_v7(), 'alert.opened', 'alert', 'opened', n, 'tests',"
        " jsonb_build_object('text', repeat('x', $1)) from generate_series(1, 60) n",
        MEGABYTE,
    )
    await seal()
    found: list[str] = []
    place = None
    while True:
        page: dict[str, Any] = await read(conn, place, newest=newest, limit=500)
        assert len(page["events"]) == 5 or page["is_last"]
        found += [event["event_id"] for event in page["events"]]
        place = page["place"]
        if page["is_last"]:
            break
    assert len(found) == 60
    order = await conn.fetch("select event_id::text from audit_log order by xid, timestamp, tenant_id, event_id")
    assert sorted(found) == sorted(row[0] for row in order)
    assert found == [row[0] for row in (reversed(order) if newest else order)]


async def test_a_long_value_of_a_row_is_cut(conn: asyncpg.Connection) -> None:
    """The event records the length and the start of the value. Short values beside it are kept."""
    await make_table(conn)
    await conn.execute("insert into gauge values ('acme', 1, repeat('ä', $1::int), 1, null)", MEGABYTE)
    await conn.execute("update gauge set name = name || 'b', value = 2")
    await conn.execute("delete from gauge")
    cut = {"truncated_characters": MEGABYTE, "start": "ä" * 2000}
    longer = {**cut, "truncated_characters": MEGABYTE + 1}
    assert [event.details for event in await events(conn)] == [
        {"new": {"id": 1, "name": cut, "value": 1, "secret": None}},
        {"changes": {"name": [cut, longer], "value": [1, 2]}},
        {"old": {"id": 1, "name": longer, "value": 2, "secret": None}},
    ]


@pytest.mark.slow
async def test_many_large_rows_of_one_statement_are_recorded(conn: asyncpg.Connection) -> None:
    """The events of one statement may be more than a single array can hold."""
    await make_table(conn)
    await conn.execute("insert into gauge select 'acme', n, repeat('x', 120000) from generate_series(1, 10000) n")
    assert await conn.fetchval("select count(*) from audit_log where action = 'row_created'") == 10000


async def test_large_details_are_cut(conn: asyncpg.Connection) -> None:
    """The transaction's reason is kept."""
    await conn.execute(
        "select set_config('pulse.reason', 'why', false), audit.write(array[audit.event('acme', 'config.rule_updated',"
        " p_details => jsonb_build_object('text', repeat('x', $1)))])",
        MEGABYTE,
    )
    details = orjson.loads(await conn.fetchval("select details from audit_log"))
    assert details == {
        "reason": "why",
        "truncated_characters": MEGABYTE + len('{"text": ""}'),
        "start": '{"text": "' + "x" * (2000 - len('{"text": "')),
    }
