"""Rows of the audit trail cannot be changed or removed by mistake, and each role does only its part."""

from collections.abc import AsyncIterator, Awaitable, Callable

import asyncpg
import pytest

DEFAULT = "audit_log_default"

Login = Callable[[str], Awaitable[asyncpg.Connection]]


@pytest.fixture
async def partitions(conn: asyncpg.Connection) -> list[str]:
    """Names of audit_log and all its partitions, one row in the default and one in a made partition."""
    await conn.execute(
        "select audit.write(array[audit.event('acme', 'config.rule_created', p_timestamp => '1999-01-01')])"
    )
    await conn.execute("select * from ops.ensure_partitions()")
    await conn.execute("select audit.write(array[audit.event('acme', 'config.rule_created')])")
    return [row[0] for row in await conn.fetch("select relid::regclass::text from pg_partition_tree('audit_log')")]


async def test_rows_arrive_in_both_kinds_of_partition(conn: asyncpg.Connection, partitions: list[str]) -> None:
    """The rows that the tests below try to change exist."""
    found = {row[0] for row in await conn.fetch("select distinct tableoid::regclass::text from audit_log")}
    assert DEFAULT in found
    assert len(found - {DEFAULT}) == 1


@pytest.mark.parametrize("role", ["postgres", "pulse_owner"])
@pytest.mark.parametrize(
    "statement", ["update {} set message = ''", "delete from {}", "truncate {}", "truncate telemetry, {}"]
)
async def test_no_table_of_the_trail_takes_a_change(
    conn: asyncpg.Connection, partitions: list[str], role: str, statement: str
) -> None:
    """UPDATE, DELETE and TRUNCATE fail on the parent and on every partition, for the owner and a superuser."""
    if role != "postgres":
        await conn.execute(f"set role {role}")
    for table in partitions:
        if "truncate" not in statement and not await conn.fetchval(f"select count(*) from {table}"):
            continue  # a statement that touches no row changes nothing
        with pytest.raises(asyncpg.PostgresError, match="is append-only") as caught:
            await conn.execute(statement.format(table))
        assert caught.value.sqlstate == "PU403"


async def test_an_upsert_or_merge_changes_nothing(conn: asyncpg.Connection, partitions: list[str]) -> None:
    """Alternatives to UPDATE pass the same guard."""
    with pytest.raises(asyncpg.PostgresError, match="is append-only"):
        await conn.execute(
            "insert into audit_log select * from audit_log on conflict on constraint audit_log_pkey"
            " do update set message = 'forged'"
        )
    with pytest.raises(asyncpg.PostgresError, match="is append-only"):
        await conn.execute("merge into audit_log a using (select 1) s on a.tenant_id = 'acme' when matched then delete")


async def test_every_partition_is_guarded(conn: asyncpg.Connection, partitions: list[str]) -> None:
    """Each table of the tree has both triggers, including tables made after the layer."""
    assert len(partitions) >= 3
    for table in partitions:
        names = await conn.fetch("select tgname from pg_trigger where tgrelid = $1::text::regclass", table)
        assert {row[0] for row in names} >= {"audit_log_append_only", "audit_log_no_truncate"}, table


async def test_moving_rows_to_their_partition_loses_none(conn: asyncpg.Connection) -> None:
    """ops.ensure_partitions empties the default partition of a month and leaves it guarded."""
    await conn.execute(
        "select audit.write(array(select audit.event('acme', 'config.rule_created', p_entity_id => n::text)"
        " from generate_series(1, 50) n))"
    )
    await conn.execute("select * from ops.ensure_partitions()")
    assert await conn.fetchval("select count(*) from audit_log where event_type = 'config.rule_created'") == 50
    assert await conn.fetchval(f"select count(*) from {DEFAULT} where event_type = 'config.rule_created'") == 0
    await conn.execute(
        "select audit.write(array[audit.event('acme', 'config.rule_created', p_timestamp => '1999-01-01')])"
    )
    with pytest.raises(asyncpg.PostgresError, match="is append-only"):
        await conn.execute(f"delete from {DEFAULT}")


@pytest.fixture
async def login(role_url: Callable[[str], str]) -> AsyncIterator[Login]:
    """Opens connections as a role."""
    opened: list[asyncpg.Connection] = []

    async def connect(role: str) -> asyncpg.Connection:
        opened.append(await asyncpg.connect(role_url(role)))
        return opened[-1]

    yield connect
    for connection in opened:
        await connection.close()


DENIED = {
    "pulse_app": ["select 1 from {}", "update {} set message = ''"],
    "pulse_ops": ["select 1 from {}", "update {} set message = ''"],
    "pulse_auditor": ["insert into {0} select * from {0}", "update {} set message = ''"],
    "pulse_exporter": ["select 1 from {}", "select 1 from audit.recent", "insert into {} select"],
}
DENIED_TO_ALL = ["delete from {}", "truncate {}", "select 1 from {}_default", "truncate {}_default"]


@pytest.mark.parametrize("role", DENIED)
async def test_each_role_is_denied_what_is_not_its_part(role: str, login: Login, partitions: list[str]) -> None:
    """Only the owner reads partitions or removes rows; writers do not read, and readers do not write."""
    connection = await login(role)
    # pulse_exporter starts read-only, but may change that itself; its rights must deny the statements.
    await connection.execute("set default_transaction_read_only = off")
    for statement in DENIED[role] + DENIED_TO_ALL:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute(statement.format("public.audit_log"))


async def test_the_writer_inserts_and_the_auditor_reads(login: Login, partitions: list[str]) -> None:
    """The two parts: INSERT without SELECT, and every view without INSERT."""
    writer, auditor = await login("pulse_app"), await login("pulse_auditor")
    await writer.execute(
        "insert into audit_log (timestamp, event_id, event_type, category, action, message, source_service)"
        " values (now(), gen_random_uuid(), 'config.rule_deleted', 'config', 'rule_deleted', 'm', 's')"
    )
    assert await auditor.fetchval("select count(*) from audit_log where action = 'rule_deleted'") == 1
    views = [row[0] for row in await auditor.fetch("select viewname from pg_views where schemaname = 'audit'")]
    assert {"auth_events", "auth_failures", "auth_failures_by_address", "config_changes", "recent"} <= set(views)
    for view in views:
        await auditor.execute(f"select * from audit.{view}")
