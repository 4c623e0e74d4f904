"""The cost of tracking grows with the statements and the changed rows, not with the unchanged rows."""

import asyncpg

from tests.support import seed
from tests.support.tracked_tables import make_table, rows

ROWS = 10_000
CALLS = "select calls from pg_stat_xact_user_functions where schemaname = 'audit' and funcname = $1"


async def test_ten_thousand_rows_are_one_write(conn: asyncpg.Connection) -> None:
    """Twice as many rows are two writes, so that no array grows without bound."""
    await make_table(conn)
    await conn.execute("set track_functions = 'all'")
    async with conn.transaction():
        await conn.execute("insert into gauge select 'acme', n, 'n' from generate_series(1, $1::int) n", ROWS)
        assert await conn.fetchval(CALLS, "write") == 1
        await conn.execute("update gauge set value = id")
        assert await conn.fetchval(CALLS, "write") == 2
        await conn.execute("insert into gauge select 'acme', -n, 'n' from generate_series(1, 2 * $1::int) n", ROWS)
        assert await conn.fetchval(CALLS, "write") == 4
        assert await conn.fetchval(CALLS, "_capture_changes") == 3
    assert await conn.fetchval("select count(*) from audit_log where category = 'config'") == 1 + 4 * ROWS
    assert await conn.fetchval("select count(distinct (event_type, entity_id)) from audit_log") == 1 + 4 * ROWS


async def test_other_updates_of_a_partly_tracked_table_call_nothing(conn: asyncpg.Connection) -> None:
    """The condition of the trigger is part of the update: no function runs for other updates of an alert."""
    await seed.tenant(conn)
    await conn.execute(
        "insert into alerts (tenant_id, fingerprint, rule_name, severity, message, opened_at)"
        " select 'acme', n::text, 'hot', 'warning', 'hot', now() from generate_series(1, 1000) n"
    )
    await conn.execute("set track_functions = 'all'")
    async with conn.transaction():
        await conn.execute("update alerts set value = 1, silenced_until = silenced_until")
        assert await conn.fetchval(CALLS, "_capture_changes") is None
        await conn.execute("update alerts set silenced_until = now() where alert_id % 100 = 0")
        assert await conn.fetchval(CALLS, "_capture_changes") == 10
    assert len(await rows(conn)) == 10
