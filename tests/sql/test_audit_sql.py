"""Writing and reading the audit trail in SQL."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import asyncpg
import orjson
import pytest

from services.shared import db, tracing

NOON = datetime(2026, 1, 5, 12, tzinfo=UTC)
CHECK = "SELECT * FROM audit_log WHERE event_type LIKE 'auth.%' ORDER BY timestamp DESC LIMIT 5"


async def write(conn: asyncpg.Connection, event_type: str = "config.rule_created", **values: Any) -> asyncpg.Record:
    """Write one event and read it back; values: arguments of audit.event without p_."""
    values = {"tenant_id": "acme", **values}
    names = ", ".join(f"p_{name} => ${number}" for number, name in enumerate(values, 2))
    event_id = uuid4()
    query = f"select audit.write(array[audit.event(p_event_type => $1, p_event_id => '{event_id}', {names})])"
    assert await conn.fetchval(query, event_type, *values.values()) == 1
    return await conn.fetchrow("select * from audit_log where event_id = $1", event_id)


async def test_an_event_needs_only_tenant_and_type(conn: asyncpg.Connection) -> None:
    """Category, action, severity, message, time and ids fill themselves in."""
    row = await write(conn, "delivery.dead")
    assert (row["tenant_id"], row["category"], row["action"], row["severity"]) == ("acme", "delivery", "dead", "error")
    assert row["message"] == "The notification was given up."
    assert row["details"] == "{}"
    assert row["event_id"].version in {4, 7}
    assert timedelta(0) <= row["recorded_at"] - row["timestamp"] < timedelta(seconds=5)


async def test_ids_sort_by_time(conn: asyncpg.Connection) -> None:
    """An event without an id gets one of version 7, whose first bits are the milliseconds."""
    await conn.execute("select audit.write(array[audit.event('acme', 'config.rule_created')])")
    row = await conn.fetchrow("select event_id, timestamp from audit_log")
    assert row["event_id"].version == 7
    assert abs(int(row["event_id"].hex[:12], 16) - row["timestamp"].timestamp() * 1000) < 1000


async def test_the_transaction_sets_actor_reason_and_trace(conn: asyncpg.Connection, app_pool: db.Pool) -> None:
    """db.act() sets the context from which an event takes its missing fields."""
    actor = db.Actor("user", "alice", "Alice")
    with tracing.use_trace_id("ab" * 16) as context:
        async with db.act(app_pool, tenant_id="acme", actor=actor, service="ui_iot", reason="too noisy") as connection:
            await connection.execute("select audit.write(array[audit.event(null, 'config.rule_updated')])")
    row = await conn.fetchrow("select * from audit_log")
    assert (row["tenant_id"], row["source_service"], row["trace_id"]) == ("acme", "ui_iot", "ab" * 16)
    assert (row["actor_type"], row["actor_id"], row["actor_name"]) == ("user", "alice", "Alice")
    assert orjson.loads(row["details"]) == {"reason": "too noisy", "request_span_id": context.span_id}


async def test_a_given_actor_is_not_mixed_with_the_transactions(app_pool: db.Pool, conn: asyncpg.Connection) -> None:
    """An event about a device does not carry the name of the acting user."""
    actor = db.Actor("user", "alice", "Alice")
    async with db.act(app_pool, tenant_id="acme", actor=actor, service="ui_iot") as connection:
        await connection.execute(
            "select audit.write(array[audit.event(null, 'config.rule_updated',"
            " p_actor_type => 'device', p_actor_id => 'd1')])"
        )
    row = await conn.fetchrow("select actor_type, actor_id, actor_name from audit_log")
    assert tuple(row) == ("device", "d1", None)


async def test_without_a_context_the_login_is_named(conn: asyncpg.Connection, app_pool: db.Pool) -> None:
    """A person in psql is named by role, a process of ours by its service."""
    await conn.execute("set pulse.actor_id = ''; set pulse.actor_type = ''")
    row = await write(conn, "config.rule_created")
    assert (row["actor_type"], row["actor_id"]) == ("user", await conn.fetchval("select session_user"))
    await app_pool.execute("select audit.write(array[audit.event('acme', 'config.rule_deleted')])")
    row = await conn.fetchrow("select * from audit_log where action = 'rule_deleted'")
    assert (row["actor_type"], row["actor_id"], row["source_service"]) == ("service", "ui_iot", "ui_iot")


async def test_an_unknown_type_is_refused_and_takes_its_fact_along(conn: asyncpg.Connection) -> None:
    """The registry is closed, and event and fact commit together or not at all."""
    with pytest.raises(asyncpg.PostgresError, match=r"'config\.rule_exploded' is not in audit\.event_types") as caught:
        await conn.execute(
            "with fact as (insert into tenants (tenant_id, name) values ('new', 'New') returning 1)"
            " select audit.write(array[audit.event('new', 'config.rule_created'),"
            " audit.event('new', 'config.rule_exploded')]) from fact"
        )
    assert caught.value.sqlstate == "PU500"
    assert await conn.fetchval("select count(*) from audit_log") == 0
    assert await conn.fetchval("select count(*) from tenants where tenant_id = 'new'") == 0


async def test_nothing_to_write_is_no_error(conn: asyncpg.Connection) -> None:
    """Set-based callers need not count first; array_agg of no row is null."""
    assert await conn.fetchval("select audit.write('{}')") == 0
    assert await conn.fetchval("select audit.write(null)") == 0
    assert await conn.fetchval("select count(*) from audit_log") == 0


async def test_a_set_is_written_in_order_by_one_statement(conn: asyncpg.Connection) -> None:
    """A thousand events cost one call, and the events are built without a function call each."""
    query = ("select {} from generate_series(1, 1000) n").format(
        "audit.event('acme', 'alert.opened', p_entity_id => n::text, p_message => 'alert ' || n)"
    )
    plan = "\n".join(row[0] for row in await conn.fetch(f"explain (verbose) {query}"))
    assert "ROW(" in plan
    assert "audit.event(" not in plan
    assert await conn.fetchval(f"select audit.write(array({query}))") == 1000
    ids = [int(row[0]) for row in await conn.fetch("select entity_id from audit_log order by timestamp, event_id")]
    assert sorted(ids) == list(range(1, 1001))
    assert await conn.fetchval(
        "select bool_and(timestamp >= before)"
        " from (select timestamp, lag(timestamp) over (order by entity_id::int) before from audit_log) s"
        " where before is not null"
    )


async def test_forged_lines_and_long_names_are_stored_harmlessly(conn: asyncpg.Connection) -> None:
    """A device's name cannot forge a second line, reverse the text or fail the caller's transaction."""
    row = await write(
        conn, message="a\r\nb\u202ec\u200bd", entity_id="x" * 5000, entity_name="n" * 5000, trace_id="t" * 5000
    )
    assert row["message"] == "a��b�c�d"
    assert (len(row["entity_id"]), len(row["entity_name"]), len(row["trace_id"])) == (256, 256, 64)


@pytest.mark.parametrize(
    ("reason", "event_type"),
    [("expired", "auth.login_failure"), ("forbidden", "auth.forbidden"), ("rate_limited", "auth.rate_limited")],
)
async def test_a_refused_login_called_twice_is_one_row(
    app_pool: db.Pool, conn: asyncpg.Connection, reason: str, event_type: str
) -> None:
    """A client repeats a call with an unknown outcome; id and time make it the same row."""
    event_id = uuid4()
    for _ in range(2):
        await app_pool.execute(
            "call audit.record_auth_failure("
            "$1, $2, 'acme', $3, '10.1.2.3', 'user', 'bob', 'Bob', null, $4, 'ui_iot', $5, 1.5)",
            event_id,
            NOON,
            reason,
            {"path": "/x"},
            "ab" * 16,
        )
    (row,) = await conn.fetch("select * from audit_log")
    assert (row["event_type"], row["severity"], row["timestamp"]) == (event_type, "warning", NOON)
    assert (str(row["ip_address"]), row["actor_id"], row["duration_ms"]) == ("10.1.2.3", "bob", 1.5)
    assert row["details"] == f'{{"path": "/x", "reason": "{reason}"}}'


async def test_a_refused_login_survives_the_request(app_pool: db.Pool, conn: asyncpg.Connection) -> None:
    """The row remains although the request's own transaction rolls back, because another connection wrote it."""
    async with app_pool.acquire() as request:
        transaction = request.transaction()
        await transaction.start()
        await app_pool.execute("call audit.record_auth_failure($1, now(), 'acme', 'expired')", uuid4())
        await transaction.rollback()
    assert await conn.fetchval("select count(*) from audit_log") == 1


async def test_views_show_the_story(conn: asyncpg.Connection) -> None:
    """Each view on one small scenario: two addresses fail, one user gets in and changes a rule."""
    fail = "call audit.record_auth_failure($1, $2, 'acme', $3, $4::inet, 'user', $5)"
    now = await conn.fetchval("select now()")
    for number, (reason, address, account) in enumerate(
        [("expired", "10.0.0.1", "bob"), ("invalid_token", "10.0.0.1", "eve"), ("rate_limited", "10.0.0.2", None)]
    ):
        await conn.execute(fail, uuid4(), now + timedelta(seconds=number), reason, address, account)
    await write(conn, "auth.login_success", actor_type="user", actor_id="alice", trace_id="ab" * 16)
    await write(conn, "config.rule_updated", actor_type="user", actor_id="alice", trace_id="ab" * 16, entity_id="7")
    await write(conn, "alert.opened", timestamp=now - timedelta(days=2))

    reasons = await conn.fetch("select reason from audit.auth_events order by timestamp")
    assert sorted(str(row[0]) for row in reasons) == ["None", "expired", "invalid_token", "rate_limited"]
    assert await conn.fetchval("select count(*) from audit.auth_failures") == 3
    by_address = await conn.fetch("select * from audit.auth_failures_by_address order by attempts desc")
    assert [(str(row["ip_address"]), row["attempts"], row["accounts"], row["reasons"]) for row in by_address] == [
        ("10.0.0.1", 2, 2, ["expired", "invalid_token"]),
        ("10.0.0.2", 1, 0, ["rate_limited"]),
    ]
    assert by_address[0]["last_at"] - by_address[0]["first_at"] == timedelta(seconds=1)
    (change,) = await conn.fetch("select event_type, actor_id, entity_id from audit.config_changes")
    assert tuple(change) == ("config.rule_updated", "alice", "7")
    assert await conn.fetchval("select count(*) from audit.recent") == 5
    trace = await conn.fetch("select details ->> 'event_type' from audit.trace($1)", "ab" * 16)
    assert [row[0] for row in trace] == ["auth.login_success", "config.rule_updated"]


async def test_what_an_older_release_called_a_change_is_still_shown(conn: asyncpg.Connection) -> None:
    """Rows of the trail are never rewritten, so the view knows their former types."""
    for event_type in ("rule.updated", "device.token_rotated", "device.authenticated"):
        await conn.execute(
            "insert into audit_log (timestamp, event_id, event_type, category, action, message, source_service)"
            " select now(), gen_random_uuid(), $1, split_part($1, '.', 1), split_part($1, '.', 2), 'm', 'ui_iot'",
            event_type,
        )
    shown = await conn.fetch("select event_type from audit.config_changes order by event_type")
    assert [row[0] for row in shown] == ["device.token_rotated", "rule.updated"]


async def test_the_auditors_check_reads_few_rows_of_a_large_table(conn: asyncpg.Connection) -> None:
    """The five newest auth events come from an index, newest first; the rest of the table is not read."""
    await conn.execute("select * from ops.ensure_partitions()")
    await conn.execute(
        "insert into audit_log (tenant_id, timestamp, event_id, event_type, category, action, message, source_service)"
        " select 'acme', now() + n * interval '1 minute', gen_random_uuid(), c || '.' || a, c, a, 'm', 's'"
        " from generate_series(1, 40000) n, lateral (select case when n % 50 = 0 then 'auth' else 'delivery' end c,"
        " case when n % 50 = 0 then 'login_failure' else 'delivered' end a) t",
    )
    await conn.execute("analyze audit_log")
    plan = "\n".join(row[0] for row in await conn.fetch(f"explain (analyze, costs off, timing off) {CHECK}"))
    assert "Seq Scan" not in plan
    assert "Index Scan Backward" in plan
    removed = [int(line.split(":")[1]) for line in plan.splitlines() if "Rows Removed by Filter" in line]
    assert sum(removed) < 1000
