"""audit.track and audit.untrack: which tables can be tracked, redaction, and durability."""

import re
from typing import Any

import asyncpg
import orjson
import pytest

from services.shared import db
from tests.support import seed
from tests.support.migrator import Migrator
from tests.support.tracked_tables import Event, events, make_table, rows

REGISTRATION = "select entity_type, redacted_columns, only_columns from audit.tracked_tables where table_name = $1"
TRIGGERS = "select tgname::text from pg_trigger where tgrelid = 'public.gauge'::regclass order by tgname"
ALL_TRIGGERS = ["track_delete", "track_insert", "track_truncate", "track_update"]


async def test_redacted_values_are_never_written(conn: asyncpg.Connection) -> None:
    """Events show that such a value exists, appeared, changed or vanished; the row's name does not reveal it."""
    await make_table(conn, track=", redact => array['secret', 'name']")
    await conn.execute("insert into gauge values ('acme', 1, 'hush-1', 1, 'hush-2'), ('acme', 2, null, null, null)")
    await conn.execute("update gauge set secret = 'hush-3', name = null, value = 2 where id = 1")
    await conn.execute("delete from gauge where id = 1")
    hidden = "[redacted]"
    assert await events(conn) == [
        Event("created", "1", {"new": {"id": 1, "name": hidden, "value": 1, "secret": hidden}}),
        Event("created", "2", {"new": {"id": 2, "name": None, "value": None, "secret": None}}),
        Event("updated", "1", {"changes": {"name": [hidden, None], "value": [1, 2], "secret": [hidden, hidden]}}),
        Event("deleted", "1", {"old": {"id": 1, "name": None, "value": 2, "secret": hidden}}),
    ]
    assert await conn.fetchval("select count(*) from audit_log l where l::text like '%hush%'") == 0


@pytest.mark.parametrize(
    ("kind", "config", "shown"),
    [
        ("webhook", {"url": "https://a.example/in?key=hush", "secret": "hush"}, "https://a.example/…"),
        ("webhook", {"url": "https://a.example:8443#hush"}, "https://a.example:8443/…"),
        ("webhook", {"url": "http://127.0.0.1:9/hush"}, "http://127.0.0.1:9/…"),
        ("webhook", {"url": "https://me:hush@a.example/in"}, None),
        ("webhook", {"url": ["hush"]}, None),
        ("slack", {"url": "https://hooks.slack.com/services/hush"}, "https://hooks.slack.com/…"),
        ("teams", {"url": "https://me:hush@a.example/in"}, None),
        ("teams", {"url": "ftp://hush"}, None),
        ("pagerduty", {"routing_key": "hush"}, None),
    ],
)
async def test_a_channels_address_is_shown_without_its_secrets(
    conn: asyncpg.Connection, kind: str, config: dict[str, Any], shown: str | None
) -> None:
    """Auditors look for the address of notifications; in psql a person can write what the API would refuse."""
    channel_id = await seed.channel(conn, kind=kind, config=orjson.dumps(config).decode())
    await conn.execute('update notification_channels set config = \'{"url": "https://evil.example/?hush"}\'')
    made, changed = await rows(conn)
    new = orjson.loads(made["details"])["new"]
    assert (made["entity_id"], new["kind"], new["config"]) == (str(channel_id), kind, "[redacted]")
    address, _, fingerprint = (new["shown_url"] or "").partition(" ")
    assert (address or None) == shown
    assert re.fullmatch(r"\([0-9a-f]{8}\)" if shown else "", fingerprint)
    changes = orjson.loads(changed["details"])["changes"]
    assert changes["config"] == ["[redacted]", "[redacted]"]
    assert (changes["shown_url"][0], changes["shown_url"][1][:20]) == (new["shown_url"], "https://evil.example")
    assert await conn.fetchval("select count(*) from audit_log l where l::text like '%hush%'") == 0


async def test_a_repeat_changes_nothing_and_other_arguments_replace(conn: asyncpg.Connection) -> None:
    """Each effective change of the registration is an event."""
    await make_table(conn)
    await conn.execute("select audit.track('gauge')")
    assert tuple(await conn.fetchrow(REGISTRATION, "public.gauge")) == ("gauge", [], None)
    assert [row[0] for row in await conn.fetch(TRIGGERS)] == ALL_TRIGGERS
    await conn.execute("select audit.track('public.gauge', 'meter', array['secret'], array['value', 'secret'])")
    assert tuple(await conn.fetchrow(REGISTRATION, "public.gauge")) == ("meter", ["secret"], ["value", "secret"])
    assert [row[0] for row in await conn.fetch(TRIGGERS)] == ["track_truncate", "track_update"]
    await conn.execute("insert into gauge values ('acme', 1, 'a', 1, 'x')")
    await conn.execute("update gauge set name = 'b'")
    await conn.execute("update gauge set name = 'c', value = 2, secret = 'y'")
    await conn.execute("select audit.track('gauge', redact => array['secret'])")  # the entity stays
    await conn.execute("update gauge set name = 'd'")
    assert await events(conn) == [
        Event("updated", "1", {"changes": {"value": [1, 2], "secret": ["[redacted]", "[redacted]"]}}),
        Event("updated", "1", {"changes": {"name": ["c", "d"]}}),
    ]
    recorded = await conn.fetch("select * from audit_log where event_type = 'config.table_tracked' order by xid")
    assert [orjson.loads(row["details"])["entity_type"] for row in recorded] == ["gauge", "meter", "meter"]
    assert {(row["entity_id"], row["actor_id"]) for row in recorded} == {("public.gauge", "tests")}


async def test_our_own_tables_can_be_tracked_otherwise(conn: asyncpg.Connection, database_url: str) -> None:
    """The owner of the installation decides, and a migration keeps the decision."""
    await conn.execute("select audit.track('alert_rules', redact => array['metric'])")
    Migrator(database_url).rebuild()
    await seed.rule(conn)
    [row] = await rows(conn)
    assert (row["event_type"], orjson.loads(row["details"])["new"]["metric"]) == ("config.rule_created", "[redacted]")


@pytest.mark.parametrize(
    ("table", "arguments", "message"),
    [
        ("keyless", "", r"public\.keyless has no primary key"),
        ("split", "", r"public\.split is no ordinary table"),
        ("split_1", "", r"public\.split_1 is no ordinary table"),
        ("parent", "", r"public\.parent is no ordinary table"),
        ("child", "", r"public\.child is no ordinary table"),
        ("passing", "", r"passing is no ordinary table"),
        ("seen", "", r"public\.seen is no ordinary table"),
        ("foreign_one", "", r"public\.foreign_one is no ordinary table"),
        ("strange", "", r"public\.strange belongs to postgres: a migration, which acts as pulse_owner"),
        ("audit_log", "", r"public\.audit_log is a table of the trail"),
        ("audit_log_default", "", r"public\.audit_log_default is a table of the trail"),
        ("audit.blocks", "", r"audit\.blocks is a table of the trail"),
        ("audit.tracked_tables", "", r"audit\.tracked_tables is a table of the trail"),
        ("sql_layer", "", r"public\.sql_layer is a table of the trail or of the migrations"),
        ("pg_catalog.pg_authid", "", r"pg_catalog\.pg_authid is a table of the trail"),
        ("gauge", ", redact => array['gone', 'secret', 'A b']", r'public\.gauge has no column gone, "A b"'),
        ("gauge", ", redact => array['ctid']", r"public\.gauge has no column ctid"),
        ("gauge", ", only_columns => array['gone']", r"public\.gauge has no column gone"),
        ("gauge", ", only_columns => '{}'", r"only_columns names no column"),
        ("gauge", ", redact => array['id']", r"id of public\.gauge cannot be redacted, because it identifies the row"),
        ("gauge", ", redact => array['tenant_id']", r"tenant_id of public\.gauge cannot be redacted"),
        ("gauge", ", entity => 'rule'", r"entity 'rule' is empty or names the rows of another table"),
        ("gauge", ", entity => ''", r"entity '' is empty or names the rows of another table"),
    ],
)
async def test_what_cannot_be_tracked_is_refused(
    conn: asyncpg.Connection, table: str, arguments: str, message: str
) -> None:
    """At once, with a clear message, and without leaving anything behind."""
    await make_table(conn, track=None)
    await conn.execute(
        "create table strange (id int primary key);"
        "set role pulse_owner;"
        "create table keyless (id int); create table parent (id int primary key);"
        "create table child (primary key (id)) inherits (parent);"
        "create table split (id int primary key) partition by range (id);"
        "create table split_1 partition of split default;"
        "create view seen as select 1 as id; create temp table passing (id int primary key);"
        "reset role;"
        "create foreign data wrapper w; create server s foreign data wrapper w;"
        "create foreign table foreign_one (id int) server s"
    )
    with pytest.raises(asyncpg.PostgresError, match=message) as caught:
        await conn.execute(f"select audit.track('{table}'{arguments})")
    assert caught.value.sqlstate == ("PU409" if "entity" in arguments else "PU422")
    assert await conn.fetchval("select count(*) from audit.tracked_tables") == 10
    assert await conn.fetchval("select count(*) from audit_log") == 0


async def test_the_services_cannot_say_what_is_tracked(app_pool: db.Pool) -> None:
    """An audited service must not choose the audited tables."""
    for call in ("audit.track('public.devices')", "audit.untrack('public.devices')"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await app_pool.execute(f"select {call}")


async def test_untracking_needs_an_actor_and_is_recorded(conn: asyncpg.Connection) -> None:
    """The last event of a table names the actor and the reason."""
    await make_table(conn)
    await conn.execute("set pulse.actor_id = ''")
    with pytest.raises(asyncpg.PostgresError, match="needs an actor"):
        await conn.execute("select audit.untrack('gauge')")
    await conn.execute("select audit.act('alice', 'moved'); select audit.untrack('gauge')")
    await conn.execute("insert into gauge values ('acme', 1); truncate gauge")
    assert await conn.fetch(TRIGGERS) == []
    assert await rows(conn) == []
    last = await conn.fetchrow("select * from audit_log order by xid desc limit 1")
    assert (last["event_type"], last["entity_id"], last["actor_id"], orjson.loads(last["details"])["reason"]) == (
        *("config.table_untracked", "public.gauge", "alice", "moved"),
    )
    with pytest.raises(asyncpg.PostgresError, match=r"public\.gauge is not tracked"):
        await conn.execute("select audit.untrack('gauge')")
