"""Tracked tables refuse changes without an actor from any client; how a client sets the actor."""

import asyncio
import re
import subprocess
from collections.abc import Callable
from uuid import UUID

import asyncpg
import orjson
import pytest

from services.local.postgres.binaries import carried_binaries
from services.shared import db
from tests.support import seed
from tests.support.connections import is_blocked
from tests.support.postgres_server import ACTOR
from tests.support.tracked_tables import make_table, rows
from tests.support.wait import until

REFUSED = r"a change of public\.\w+ needs an actor, .*select audit\.act\('psql:alice', 'why'\)"

Psql = Callable[[str], subprocess.CompletedProcess[str]]


@pytest.fixture
def psql(database_url: str) -> Psql:
    """Runs a script in psql as the superuser, in autocommit mode like psql's default."""

    def run(script: str) -> subprocess.CompletedProcess[str]:
        program = [str(carried_binaries() / "psql"), "-XAtq", "-v", "ON_ERROR_STOP=1", database_url]
        return subprocess.run(program, input=script, capture_output=True, text=True, check=False)

    return run


@pytest.mark.parametrize(
    "statement",
    [
        "insert into alert_rules (tenant_id, name, metric, operator, threshold) values ('acme', 'n', 'm', '>', 1)",
        "update alert_rules set threshold = 0",
        "delete from alert_rules",
        "truncate alert_rules, notification_routes, rule_state",
        "merge into alert_rules r using (select 1) s on true when matched then update set threshold = 1",
        "copy alert_rules (tenant_id, name, metric, operator, threshold) from stdin;\nacme\tn\tm\t>\t1\n\\.",
        "with gone as (delete from notification_routes returning 1) select count(*) from gone",
        "delete from notification_channels",
        "alter table devices owner to postgres; update devices set enabled = false",
        "set role pulse_owner; update devices set name = 'x'",
        "truncate telemetry, devices",
        "update alerts set silenced_until = now()",
    ],
)
async def test_psql_is_refused_without_an_actor(conn: asyncpg.Connection, psql: Psql, statement: str) -> None:
    """This includes the superuser. The message shows the remedy, and with an actor the same statement succeeds."""
    await seed.device(conn)
    rule_id = await seed.rule(conn)
    channel_id = await seed.channel(conn)
    if "notification_channels" not in statement:
        await seed.route(conn, channel_id, rule_id=rule_id)
    await conn.execute(
        "insert into alerts (tenant_id, fingerprint, rule_name, severity, message, opened_at)"
        " values ('acme', 'rule:1:boiler-1', 'hot', 'warning', 'hot', now())"
    )
    before = len(await rows(conn))
    refused = psql(f"{statement}\n")
    assert refused.returncode == 3
    assert re.search(REFUSED, refused.stderr)
    assert len(await rows(conn)) == before
    done = psql(f"begin; select audit.act('psql:alice', 'because');\n{statement}\n;commit;")
    assert (done.returncode, done.stderr) == (0, "")
    new = (await rows(conn))[before:]
    assert new
    assert {(row["actor_type"], row["actor_id"], row["source_service"]) for row in new} == {
        ("user", "psql:alice", "psql")
    }
    assert {orjson.loads(row["details"])["reason"] for row in new} == {"because"}


async def test_what_changes_nothing_needs_no_actor(conn: asyncpg.Connection, psql: Psql) -> None:
    """A statement that finds no row, or leaves it unchanged, is no change."""
    await seed.rule(conn)
    assert psql("update alert_rules set threshold = threshold, updated_at = now(); delete from devices").stderr == ""
    assert len(await rows(conn)) == 1


async def test_outside_a_transaction_the_actor_is_gone_at_once(psql: Psql) -> None:
    """A forgotten begin is refused like a forgotten actor."""
    script = "select audit.act('psql:alice', 'why'); truncate devices;"
    assert "begin; select audit.act(" in psql(script).stderr
    # The same two statements in one message are one transaction.
    assert psql(f"begin; {script} commit;").stderr == ""


async def test_an_actor_of_the_session_will_do(conn: asyncpg.Connection) -> None:
    """For a script of many transactions; audit.act replaces it completely, so that no act mixes two actors."""
    await conn.execute("set pulse.actor_type = 'service'; set pulse.actor_id = 'nightly'; set pulse.actor_name = 'N'")
    await conn.execute("set pulse.trace_id = 'aa'; set pulse.ip_address = '10.1.2.3'")
    await make_table(conn)
    await conn.execute("insert into gauge values ('acme', 1)")
    async with conn.transaction():
        await conn.execute("select audit.act('alice', 'why')")
        await conn.execute("insert into gauge values ('acme', 2)")
    await conn.execute("insert into gauge values ('acme', 3)")
    login = await conn.fetchval("select session_user")
    nightly = ("service", "nightly", "N", "aa", "10.1.2.3")
    names = ("actor_type", "actor_id", "actor_name", "trace_id", "ip_address")
    assert [tuple(row[name] and str(row[name]) for name in names) for row in await rows(conn)] == [
        nightly,
        ("user", "alice", login, None, None),
        nightly,
    ]


@pytest.mark.parametrize(
    ("actor", "reason", "trace_id"),
    [("", "why", None), (" ", "why", None), (None, "why", None), ("a", "", None), ("a", None, None)]
    + [
        ("a", "why", trace_id)
        for trace_id in ("", "ab", "AB" * 16, "zz" * 16, "ab" * 16 + "\n", "0" * 32, str(UUID(int=0)))
    ]
    + [("a", "why", f"{2_490_000_000_000:012x}7bea8{'1' * 15}")],
)
async def test_an_actor_and_a_reason_are_required(
    conn: asyncpg.Connection, actor: str | None, reason: str | None, trace_id: str | None
) -> None:
    """A trace id must be valid."""
    with pytest.raises(
        asyncpg.PostgresError, match=r"actor and reason are required|32 lower-case hex digits|in the future"
    ) as caught:
        await conn.execute("select audit.act($1, $2, trace_id => $3)", actor, reason, trace_id)
    assert caught.value.sqlstate == "PU422"


async def test_the_services_act_through_their_functions(app_pool: db.Pool, conn: asyncpg.Connection) -> None:
    """As pulse_app, which has no rights on tables; without an actor the function changes nothing."""
    await seed.tenant(conn)
    body = {"name": "hot", "metric": "heat", "operator": ">", "threshold": 80}
    missing, ann = db.Actor("user", ""), db.Actor("user", "ann", "Ann")
    async with db.act(app_pool, tenant_id="acme", actor=missing, service="ui_iot") as connection:
        with pytest.raises(asyncpg.PostgresError, match=REFUSED) as caught:
            await connection.execute("select evaluator.create_rule($1)", body)
    assert caught.value.sqlstate == "PU403"
    async with db.act(app_pool, tenant_id="acme", actor=ann, service="ui_iot") as connection:
        await connection.execute("select evaluator.create_rule($1)", body)
    [row] = await rows(conn)
    assert (row["actor_id"], row["actor_name"], row["source_service"]) == ("ann", "Ann", "ui_iot")


async def test_another_role_with_rights_on_the_table_is_audited_too(conn: asyncpg.Connection) -> None:
    """The role needs no right on the trail, and cannot write to it directly."""
    await make_table(conn)
    await conn.execute("grant insert on gauge to pulse_auditor; set role pulse_auditor; set pulse.actor_id = ''")
    with pytest.raises(asyncpg.PostgresError, match=REFUSED):
        await conn.execute("insert into gauge values ('acme', 1)")
    await conn.execute("set pulse.actor_id = 'ann'; insert into gauge values ('acme', 1)")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await conn.execute("select audit.write(array[]::audit_log[])")
    await conn.execute("reset role")
    assert [row["actor_id"] for row in await rows(conn)] == ["ann"]


async def test_two_writers_of_one_row_each_record_what_they_saw(conn: asyncpg.Connection, database_url: str) -> None:
    """The second writer waits for the first, and its old value is the first one's new value."""
    await make_table(conn)
    await conn.execute("insert into gauge values ('acme', 1, 'a', 0), ('acme', 2, 'b', 0)")
    other = await asyncpg.connect(database_url, server_settings={**ACTOR, "pulse.actor_id": "other"})
    try:
        async with conn.transaction():
            await conn.execute("update gauge set value = value + 1 where id = 1")
            waiting = asyncio.create_task(other.execute("update gauge set value = value + 1"))

            async def blocked() -> bool:
                return await is_blocked(conn, other)

            await until(blocked)
        await waiting
    finally:
        await other.close()
    recorded = [
        (row["actor_id"], row["entity_id"], orjson.loads(row["details"])["changes"]["value"])
        for row in await rows(conn)
        if row["action"] == "row_updated"
    ]
    assert sorted(recorded) == [("other", "1", [1, 2]), ("other", "2", [0, 1]), ("tests", "1", [0, 1])]
