"""Tracked tables stay tracked through migrations, changes of the table, and renames."""

import asyncpg
import psycopg
import pytest

from migrations.role_names import RoleNames
from tests.support.migrator import Migrator, dump_schema
from tests.support.tracked_tables import Event, events, make_table

TRACKED = "select table_name from audit.tracked_tables order by table_name"


async def test_a_users_table_is_tracked_after_a_migration(conn: asyncpg.Connection, database_url: str) -> None:
    """Every trigger of the layer is dropped and comes back as it was, in any schema."""
    await conn.execute(f'create schema "My Own"; grant usage on schema "My Own" to {RoleNames().owner}')
    await make_table(conn, '"My Own"."Gau.ge"', track=", 'meter', array['secret']")
    await make_table(conn, track=", only_columns => array['value']")
    before = dump_schema(database_url)
    Migrator(database_url).rebuild()
    assert dump_schema(database_url) == before
    await conn.execute("insert into \"My Own\".\"Gau.ge\" values ('acme', 1, 'a', 1, 'hush')")
    await conn.execute("insert into gauge values ('acme', 2, 'b', 1, 'x'); update gauge set name = 'c', value = 2")
    assert await events(conn) == [
        Event("created", "1", {"new": {"id": 1, "name": "a", "value": 1, "secret": "[redacted]"}}),
        Event("updated", "2", {"changes": {"value": [1, 2]}}),
    ]


async def test_a_table_that_is_gone_stops_no_migration(conn: asyncpg.Connection, database_url: str) -> None:
    """It leaves the list with an event: a rename must not end the trail silently."""
    await make_table(conn)
    await make_table(conn, "public.other")
    await make_table(conn, "public.part")
    await conn.execute("alter table gauge rename to renamed; drop table other; create view other as select 1 as id")
    await conn.execute(
        "create table whole (like part including all) partition by range (id); alter table whole owner to pulse_owner;"
        "alter table whole attach partition part default"
    )
    await conn.execute("insert into renamed values ('acme', 1)")  # until then it is tracked under any name
    Migrator(database_url).rebuild()
    assert not {"public.gauge", "public.other", "public.part"} & {row[0] for row in await conn.fetch(TRACKED)}
    untracked = "select entity_id from audit_log where event_type = 'config.table_untracked' order by entity_id"
    assert [row[0] for row in await conn.fetch(untracked)] == ["public.gauge", "public.other", "public.part"]
    await conn.execute("insert into renamed values ('acme', 2)")
    assert [event.entity_id for event in await events(conn)] == ["1"]


def test_a_table_taken_from_the_owner_stops_the_migration(database_url: str) -> None:
    """It could not be tracked again, so the migration changes nothing and names the table."""
    with psycopg.connect(database_url, autocommit=True) as session:
        session.execute("create table gauge (id int primary key); alter table gauge owner to pulse_owner")
        session.execute("select audit.track('gauge'); alter table gauge owner to current_user")
    with pytest.raises(Exception, match=r"nothing was changed: .*gauge.* must be owner of (table|relation) gauge"):
        Migrator(database_url).rebuild()


async def test_a_downgrade_takes_the_triggers_along(conn: asyncpg.Connection, database_url: str) -> None:
    """At 0001 nothing is tracked; at the next upgrade our own tables are."""
    await make_table(conn)
    migrator = Migrator(database_url)
    migrator.downgrade("0001")
    assert await conn.fetchval("select count(*) from pg_trigger where tgname like 'track\\_%'") == 0
    await conn.execute("insert into gauge values ('acme', 1)")
    migrator.upgrade()
    assert [row[0] for row in await conn.fetch(TRACKED)] == [
        *("public.alert_rules", "public.alerts", "public.api_keys", "public.devices", "public.escalation_policies"),
        *("public.escalation_steps", "public.notification_channels", "public.notification_routes"),
        *("public.revocations", "public.tenant_limits"),
    ]


async def test_columns_come_and_go(conn: asyncpg.Connection) -> None:
    """A new column is recorded, a dropped one is not, and the table need not be tracked again."""
    await make_table(conn)
    await conn.execute("insert into gauge values ('acme', 1, 'a', 1)")
    await conn.execute("alter table gauge drop column name, add column unit text default 'C'")
    await conn.execute("update gauge set unit = 'F'")
    await conn.execute("insert into gauge (tenant_id, id) values ('acme', 2)")
    assert (await events(conn))[1:] == [
        Event("updated", "1", {"changes": {"unit": ["C", "F"]}}),
        Event("created", "2", {"new": {"id": 2, "value": None, "secret": None, "unit": "C"}}),
    ]


@pytest.mark.parametrize(
    "only", ["", ", only_columns => array['value', 'secret']", ", only_columns => array['secret']"]
)
async def test_a_redacted_column_that_is_renamed_is_not_shown(
    conn: asyncpg.Connection, database_url: str, only: str
) -> None:
    """The change is refused until the redacted columns are declared anew, even after a migration."""
    await make_table(conn, track=f", redact => array['secret']{only}")
    await conn.execute("alter table gauge disable trigger user; insert into gauge values ('acme', 1, 'a', 1, 'hush')")
    await conn.execute("alter table gauge enable trigger user; alter table gauge rename secret to key")
    for _ in range(2):
        with pytest.raises(asyncpg.PostgresError, match=r"public\.gauge has no column secret") as caught:
            await conn.execute("update gauge set key = 'hush-2', value = 2")
        assert caught.value.sqlstate == "PU422"
        Migrator(database_url).rebuild()
    await conn.execute("select audit.track('gauge', redact => array['key'])")
    await conn.execute("update gauge set key = 'hush-2'")
    assert await events(conn) == [Event("updated", "1", {"changes": {"key": ["[redacted]", "[redacted]"]}})]


async def test_one_of_several_tracked_columns_is_renamed(conn: asyncpg.Connection, database_url: str) -> None:
    """Its changes are refused before and after a migration, never left out."""
    await make_table(conn, track=", only_columns => array['value', 'name']")
    await conn.execute("insert into gauge values ('acme', 1, 'a', 1); alter table gauge rename name to label")
    for _ in range(2):
        with pytest.raises(asyncpg.PostgresError, match=r"public\.gauge has no column name"):
            await conn.execute("update gauge set label = 'b'")
        Migrator(database_url).rebuild()
    await conn.execute("select audit.track('gauge', only_columns => array['value', 'label', 'label'])")
    definition = (
        "select pg_get_triggerdef(oid) from pg_trigger where tgrelid = 'gauge'::regclass and tgname = 'track_update'"
    )
    assert "WHEN (record_image_ne(ROW(old.label, old.value), ROW(" in await conn.fetchval(definition)
    await conn.execute("update gauge set label = 'b'; update gauge set secret = 's'")
    assert await events(conn) == [Event("updated", "1", {"changes": {"label": ["a", "b"]}})]


async def test_a_table_whose_key_is_dropped_takes_no_change(conn: asyncpg.Connection, database_url: str) -> None:
    """Without a key its rows cannot be distinguished; the migration still succeeds."""
    await make_table(conn)
    await conn.execute("alter table gauge drop constraint gauge_pkey")
    Migrator(database_url).rebuild()
    with pytest.raises(asyncpg.PostgresError, match=r"public\.gauge has no primary key"):
        await conn.execute("insert into gauge values ('acme', 1)")


@pytest.mark.parametrize(
    ("hole", "count"),
    [
        ("drop table gauge; create table gauge (id int primary key)", 1),
        ("drop trigger track_update on gauge; drop trigger track_truncate on devices", 2),
        ("alter table gauge disable trigger track_delete", 1),
        ("alter table alerts disable trigger all; alter table devices enable always trigger track_insert", 1),
        ("alter table gauge add column extra int", 0),
    ],
)
async def test_a_hole_in_the_tracking_shows_as_a_metric(conn: asyncpg.Connection, hole: str, count: int) -> None:
    """An owner can remove a trigger, but not unnoticed."""
    await make_table(conn)
    assert await conn.fetchval("select value from metrics.tracked_tables_unguarded") == 0
    await conn.execute(hole)
    assert await conn.fetchval("select value from metrics.tracked_tables_unguarded") == count
