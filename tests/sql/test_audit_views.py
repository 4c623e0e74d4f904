"""The auditor's views: their rows for a small story, and their reads of a large trail."""

from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import asyncpg
import orjson
import pytest

from tests.support.benign_day import account
from tests.support.plans import rows_read

DAY = timedelta(days=1)
ROWS = 200_000

# A year of events, one every 150 s: 1 in 10 is a login of one of 1,000 users, 1 in 100 a refusal of one of 2,000
# accounts and addresses; the rest are events of machines.
TRAIL = f"""
set session_replication_role = replica;
insert into audit_log (tenant_id, timestamp, recorded_at, event_id, event_type, category, action, message,
                       source_service, severity, actor_type, actor_id, ip_address, details)
select 'acme', t.at, t.at, gen_random_uuid(), k.category || '.' || k.action, k.category, k.action, 'm', 'ui_iot',
       k.severity, k.actor_type, case when k.actor_type <> 'anonymous' then k.actor_type || '-' || i % 1000 end,
       case when k.category = 'auth' then '10.0.0.0'::inet + i / 100 % 2000 end,
       case k.action
         when 'login_failure'
           then jsonb_build_object('reason', 'invalid_token', 'account', 'acct_' || i / 100 % 2000)
         when 'login_success' then jsonb_build_object('account', 'acct_user-' || i % 1000)
         else '{{}}'::jsonb
       end
from generate_series(1, {ROWS}) i
cross join lateral (select now() - i * interval '150 seconds' as at) t
cross join lateral (
  select 'auth' as category, 'login_failure' as action, 'anonymous' as actor_type, 'warning' as severity
  where i % 100 = 0
  union all
  select 'auth', 'login_success', 'user', 'info' where i % 10 = 1
  union all
  select 'device', 'readings_accepted', 'device', 'debug' where i % 100 <> 0 and i % 10 <> 1
) k;
reset session_replication_role;
"""


async def refuse(
    conn: asyncpg.Connection, reason: str, *, when: datetime, address: str = "10.0.0.1", **details: object
) -> None:
    """Record one refused request."""
    await conn.execute(
        "call audit.record_auth_failure($1, $2, null, $3, $4::inet, p_details => $5)",
        uuid4(),
        when,
        reason,
        address,
        orjson.dumps(details).decode(),
    )


@pytest.fixture
async def auditor(role_url: Callable[[str], str], conn: asyncpg.Connection) -> AsyncIterator[asyncpg.Connection]:
    """Connection as the auditor."""
    connection = await asyncpg.connect(role_url("pulse_auditor"))
    yield connection
    await connection.close()


async def test_failures_by_account_reason_and_address(conn: asyncpg.Connection, auditor: asyncpg.Connection) -> None:
    """An aggregated row counts as all events that it represents, in each view."""
    noon = datetime(2026, 1, 5, 12, tzinfo=UTC)
    bob, eve = account("bob"), account("eve")
    await refuse(conn, "invalid_token", when=noon, account=bob)
    await refuse(conn, "invalid_token", when=noon + DAY, account=bob, address="10.0.0.2", aggregated=True, count=99)
    await refuse(conn, "expired", when=noon, account=eve)
    await refuse(conn, "missing_token", when=noon, aggregated=True, count=1000)
    await refuse(conn, "rate_limited", when=noon, account=eve)

    rows = await auditor.fetch("select * from audit.auth_failures_by_account order by failures desc")
    assert [(row["account"], row["failures"], row["addresses"], row["reasons"]) for row in rows] == [
        (bob, 100, 2, ["invalid_token"]),
        (eve, 2, 1, ["expired", "rate_limited"]),
    ]
    assert (rows[0]["first_at"], rows[0]["last_at"]) == (noon, noon + DAY)
    rows = await auditor.fetch("select * from audit.auth_failures_by_reason order by day, reason")
    assert [(str(row["day"]), row["reason"], row["failures"], row["accounts"]) for row in rows] == [
        ("2026-01-05", "expired", 1, 1),
        ("2026-01-05", "invalid_token", 1, 1),
        ("2026-01-05", "missing_token", 1000, 0),
        ("2026-01-05", "rate_limited", 1, 1),
        ("2026-01-06", "invalid_token", 99, 1),
    ]
    rows = await auditor.fetch("select * from audit.auth_failures_by_address order by ip_address")
    assert [(str(row["ip_address"]), row["attempts"], row["accounts"]) for row in rows] == [
        ("10.0.0.1", 1003, 2),
        ("10.0.0.2", 99, 1),
    ]


async def test_a_day_is_utc_whatever_the_session(conn: asyncpg.Connection, auditor: asyncpg.Connection) -> None:
    """The last microsecond belongs to the day, the first of the next does not, in Kolkata too."""
    midnight = datetime(2026, 1, 6, tzinfo=UTC)
    await refuse(conn, "expired", when=midnight - timedelta(microseconds=1))
    await refuse(conn, "expired", when=midnight)
    for zone in ("UTC", "Asia/Kolkata", "America/Los_Angeles"):
        await auditor.execute(f"set timezone = '{zone}'")
        rows = await auditor.fetch("select day::text, events from audit.daily_digest order by day")
        assert [tuple(row) for row in rows] == [("2026-01-05", 1), ("2026-01-06", 1)]


async def test_the_digest_of_a_day(conn: asyncpg.Connection, auditor: asyncpg.Connection) -> None:
    """Events, actors and failures of each tenant and event type; every event is in exactly one line."""
    now = await conn.fetchval("select now()")
    await conn.execute(
        "select audit.write(array["
        " audit.event('acme', 'config.rule_updated', p_actor_type => 'user', p_actor_id => 'alice'),"
        " audit.event('acme', 'config.rule_updated', p_actor_type => 'user', p_actor_id => 'bob'),"
        " audit.event('acme', 'config.rule_updated', p_actor_type => 'user', p_actor_id => 'bob'),"
        " audit.event('other', 'config.rule_updated', p_actor_type => 'user', p_actor_id => 'bob'),"
        " audit.event('acme', 'delivery.dead'), audit.event('acme', 'delivery.retried')])"
    )
    await refuse(conn, "expired", when=now, aggregated=True, count=7)
    rows = await auditor.fetch("select * from audit.daily_digest order by event_type, tenant_id")
    assert [tuple(row)[1:7] for row in rows] == [
        ("system", "auth", "auth.login_failure", 7, 0, 7),
        ("acme", "config", "config.rule_updated", 3, 2, 0),
        ("other", "config", "config.rule_updated", 1, 1, 0),
        ("acme", "delivery", "delivery.dead", 1, 1, 1),
        ("acme", "delivery", "delivery.retried", 1, 1, 0),
    ]


async def test_the_activity_of_one_user(conn: asyncpg.Connection, auditor: asyncpg.Connection) -> None:
    """Acts with entity and reason, in order; without those of other users or of a device with the same name."""
    await conn.execute(
        "select audit.write(array["
        " audit.event('acme', 'config.rule_updated', p_entity_id => '7', p_actor_type => 'user', p_actor_id => 'alice',"
        """ p_details => '{"reason": "too noisy"}'),"""
        " audit.event('acme', 'config.rule_deleted', p_entity_id => '7', p_actor_type => 'user', p_actor_id => 'bob'),"
        " audit.event('acme', 'device.authenticated', p_actor_type => 'device', p_actor_id => 'alice')])"
    )
    rows = await auditor.fetch("select * from audit.actor_activity where actor_id = 'alice'")
    assert [(row["event_type"], row["entity_id"], row["reason"]) for row in rows] == [
        ("config.rule_updated", "7", "too noisy")
    ]


@pytest.mark.slow
@pytest.mark.parametrize("partitioned", [False, True])
async def test_each_view_reads_what_it_is_asked_for(
    conn: asyncpg.Connection, auditor: asyncpg.Connection, partitioned: bool
) -> None:
    """200,000 rows of a year, in one partition or in twelve: a query reads little more than its answer."""
    await conn.execute(TRAIL)
    if partitioned:
        await conn.execute("select ops.ensure_partitions()")
    await conn.execute("vacuum analyze audit_log")
    rows_a_day = 86400 // 150
    questions = {
        "auth_failures_by_account where account = 'acct_7'": (1, 300),
        "auth_failures_by_address where ip_address = '10.0.0.7'": (1, 300),
        "auth_failures_by_reason where day = current_date - 3": (1, 200),
        "auth_failures_by_reason where day >= current_date - 3": (4, 400),
        "daily_digest where day = current_date - 3": (3, rows_a_day + 100),
        "daily_digest where day = current_date - 300 and tenant_id = 'acme'": (3, rows_a_day + 100),
        "actor_activity where actor_id = 'user-31'": (ROWS // 1000, ROWS // 1000 + 10),
        "actor_activity where actor_id = 'user-31' and timestamp > now() - interval '30 days'": (18, 30),
        "auth_events order by timestamp desc limit 20": (20, 200),
        "auth_failures where ip_address = '10.0.0.7' order by timestamp desc limit 20": (1, 20),
    }
    for question, (answers, most) in questions.items():
        found = await auditor.fetch(f"select * from audit.{question}")
        assert len(found) >= answers, question
        read = await rows_read(conn, f"select * from audit.{question}")
        assert sum(count for table, count in read.items() if table.startswith("audit_log")) <= most, question


async def audit_rows_touched(conn: asyncpg.Connection) -> int:
    """Return the number of audit_log rows that this transaction read, by index or sequentially."""
    return int(
        await conn.fetchval(
            "select coalesce(sum(seq_tup_read + coalesce(idx_tup_fetch, 0)), 0)::bigint from pg_stat_xact_user_tables"
            " where relname like 'audit_log%'"
        )
    )


@pytest.mark.parametrize("analyzed", ["empty", "full"])
async def test_a_pass_of_the_detector_reads_its_window(conn: asyncpg.Connection, analyzed: str) -> None:
    """A trail of 50,000 rows and 3,000 logins within the hour cost nothing; 40 recent failures cost their number."""
    if analyzed == "empty":
        await conn.execute("analyze audit_log")
    await conn.execute(TRAIL.replace(f"(1, {ROWS})", "(1, 50000)"))
    await conn.execute("select ops.ensure_partitions()")
    await conn.execute("vacuum audit_log")
    await conn.execute(
        "insert into audit_log"
        " (timestamp, recorded_at, event_id, event_type, category, action, message, source_service, details)"
        " select t.at, t.at, gen_random_uuid(), 'auth.' || a, 'auth', a, '', 'ui_iot',"
        " jsonb_build_object('reason', 'invalid_token', 'account', 'acct_' || i / 75 % 9)"
        " from generate_series(1, 3000) i,"
        " lateral (select now() - interval '1 second' * (i / 2) as at,"
        " case when i % 75 = 0 then 'login_failure' else 'login_success' end as a) t"
    )
    if analyzed == "full":
        await conn.execute("analyze audit_log")
    await conn.fetch("select * from audit.detect_attacks()")
    for _ in range(7):  # often enough for the generic plans of a long-lived connection
        async with conn.transaction():
            before = await audit_rows_touched(conn)
            await conn.fetch("select * from audit.detect_attacks()")
            touched = await audit_rows_touched(conn) - before
        assert touched < 1000


async def test_a_flood_costs_its_size_before_there_are_statistics(conn: asyncpg.Connection) -> None:
    """5,000 accounts tried within minutes on a table that was analyzed while empty: a few reads a row."""
    await conn.execute("select ops.ensure_partitions()")
    await conn.execute("analyze audit_log")
    await conn.execute(
        "insert into audit_log (timestamp, event_id, event_type, category, action, message, source_service, ip_address,"
        " details) select now() - interval '0.1 second' * i, gen_random_uuid(), 'auth.login_failure', 'auth',"
        " 'login_failure', '', 'ui_iot', '10.0.0.0'::inet + i,"
        " jsonb_build_object('reason', 'invalid_token', 'account', 'acct_' || i) from generate_series(1, 5000) i"
    )
    await conn.execute("update audit.attack_detector set checked_at = clock_timestamp() + interval '2 minutes'")
    async with conn.transaction():
        before = await audit_rows_touched(conn)
        found = await conn.fetch("select kind from audit.detect_attacks()")
        touched = await audit_rows_touched(conn) - before
    assert [row["kind"] for row in found] == ["password_spraying"]
    assert touched < 20 * 5000
