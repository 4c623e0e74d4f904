"""The audit event of a changed row, for every kind of statement."""

import time
from uuid import UUID

import asyncpg
import orjson
import pytest

from tests.support import seed
from tests.support.tracked_tables import Event, events, make_table, rows


def created(entity_id: int, **new: object) -> Event:
    """Return a new row of the table of tests.support.tracked_tables."""
    values = {"id": entity_id, "name": None, "value": None, "secret": None}
    return Event("created", str(entity_id), {"new": {**values, **new}})


def updated(entity_id: int, **changes: list[object]) -> Event:
    """Return a changed row of the same."""
    return Event("updated", str(entity_id), {"changes": changes})


async def test_an_event_names_the_row_the_actor_and_both_values(conn: asyncpg.Connection) -> None:
    """Every fact that an auditor needs is in columns or in details."""
    rule_id = await seed.rule(conn)
    # A caller's id slightly ahead of this clock, as a person would paste it.
    pasted = UUID(f"{int((time.time() + 200) * 1000):012x}7bea8{'d' * 15}")
    trace_id = pasted.hex
    async with conn.transaction():
        await conn.execute("select audit.act('psql:alice', 'it rings too often', trace_id => $1)", str(pasted).upper())
        await conn.execute("update alert_rules set threshold = 85, severity = 'error', updated_at = now()")
    [_, row] = await rows(conn)
    assert (row["event_type"], row["entity_type"], row["entity_id"]) == ("config.rule_updated", "rule", str(rule_id))
    assert (row["tenant_id"], row["entity_name"], row["trace_id"]) == ("acme", "too hot", trace_id)
    assert (row["actor_type"], row["actor_id"]) == ("user", "psql:alice")
    assert row["actor_name"] == await conn.fetchval("select session_user")
    assert row["message"] == f'rule {rule_id} "too hot" changed: threshold, severity'
    assert orjson.loads(row["details"]) == {
        "reason": "it rings too often",
        "changes": {"threshold": [80, 85], "severity": ["warning", "error"]},
    }


async def test_every_statement_that_changes_rows_is_covered(conn: asyncpg.Connection) -> None:
    """INSERT, UPDATE and DELETE, COPY, ON CONFLICT in both ways, MERGE in its three, TRUNCATE."""
    await make_table(conn)
    await conn.execute("insert into gauge values ('acme', 1, 'a', 1), ('acme', 2, 'b', 2)")
    await conn.execute("update gauge set value = 9 where id = 2")
    await conn.execute("delete from gauge where id = 1")
    await conn.copy_records_to_table("gauge", records=[("acme", 3, "c", 3.0, None)])
    upsert = "insert into gauge values {} on conflict (id) do update set value = excluded.value, name = excluded.name"
    await conn.execute(upsert.format("('acme', 3, 'c', 4), ('acme', 4, 'd', 4)"))
    await conn.execute("insert into gauge values ('acme', 4, 'no', 0) on conflict do nothing")
    await conn.execute(
        "merge into gauge g using (values (2, 'x'), (3, 'y'), (5, 'z')) v (id, name) on g.id = v.id"
        " when matched and v.id = 2 then delete"
        " when matched then update set name = v.name"
        " when not matched then insert (tenant_id, id, name) values ('acme', v.id, v.name)"
    )
    await conn.execute("truncate gauge")
    old = {"id": 2, "name": "b", "value": 9, "secret": None}
    assert await events(conn) == [
        created(1, name="a", value=1),
        created(2, name="b", value=2),
        updated(2, value=[2, 9]),
        Event("deleted", "1", {"old": {"id": 1, "name": "a", "value": 1, "secret": None}}),
        created(3, name="c", value=3),
        updated(3, value=[3, 4]),
        created(4, name="d", value=4),
        Event("deleted", "2", {"old": old}),
        updated(3, name=["c", "y"]),
        created(5, name="z"),
        Event("truncated", "public.gauge", {"entity_type": "gauge", "rows": 3}, tenant_id="system"),
    ]
    assert {row["entity_type"] for row in await rows(conn)} == {"gauge", "table"}
    assert {row["event_type"] for row in await rows(conn)} == {
        *(f"config.row_{act}" for act in ("created", "updated", "deleted")),
        "config.table_truncated",
    }


async def test_of_many_rows_only_the_changed_ones_are_recorded(conn: asyncpg.Connection) -> None:
    """A statement may touch unchanged rows; a changed time of change alone is no change."""
    await make_table(conn, columns="id int primary key, value int, created_at timestamptz, updated_at timestamptz")
    await conn.execute("insert into gauge select n, n, now(), now() from generate_series(1, 50) n")
    await conn.execute("update gauge set value = case when id % 10 = 0 then -id else value end, updated_at = now()")
    await conn.execute("update gauge set updated_at = now(), created_at = now(), value = value")
    changed = [event for event in await events(conn) if event.act == "updated"]
    assert sorted(changed, key=lambda event: str(event.entity_id)) == [
        Event("updated", str(n), {"changes": {"value": [n, -n]}}, tenant_id="system") for n in (10, 20, 30, 40, 50)
    ]


async def test_a_new_key_is_an_end_and_a_beginning(conn: asyncpg.Connection) -> None:
    """Rows pair by key in any order; a row that moves between tenants shows each tenant its own side."""
    await make_table(conn)
    await conn.execute("insert into gauge values ('acme', 1, 'a'), ('acme', 2, 'b')")
    await conn.execute("update gauge set id = id + 10 where id = 1")
    assert await events(conn) == [
        created(1, name="a"),
        created(2, name="b"),
        Event("deleted", "1", {"old": {"id": 1, "name": "a", "value": None, "secret": None}}),
        created(11, name="a"),
    ]
    await conn.execute("update gauge set tenant_id = 'other' where id = 2")
    gone, come = sorted((await events(conn))[4:], key=lambda event: event.tenant_id)
    assert (gone.act, gone.entity_id, gone.tenant_id) == ("deleted", "2", "acme")
    assert (come.act, come.entity_id, come.tenant_id) == ("created", "2", "other")


async def test_keys_of_several_columns_are_joined_and_cascades_are_recorded(conn: asyncpg.Connection) -> None:
    """Rows that a foreign key deletes or changes have the same actor."""
    channel_id, rule_id = await seed.channel(conn), await seed.rule(conn)
    route_id = await seed.route(conn, channel_id, rule_id=rule_id)
    policy_id = await conn.fetchval(
        "insert into escalation_policies (tenant_id, name) values ('acme', 'p') returning policy_id"
    )
    await conn.execute(
        "insert into escalation_steps select 'acme', $1, n, n, $2 from generate_series(1, 2) n", policy_id, channel_id
    )
    await conn.execute("delete from alert_rules")
    await conn.execute("delete from escalation_policies")
    found = [(row["event_type"], row["entity_id"]) for row in await rows(conn) if row["action"].endswith("deleted")]
    assert sorted(found) == [
        ("config.policy_deleted", str(policy_id)),
        ("config.policy_step_deleted", f"{policy_id}/1"),
        ("config.policy_step_deleted", f"{policy_id}/2"),
        ("config.route_deleted", str(route_id)),
        ("config.rule_deleted", str(rule_id)),
    ]


async def test_any_name_and_any_type_will_do(conn: asyncpg.Connection) -> None:
    """Quoted names, arrays, json that jsonb refuses, types without equality, NULL against JSON's null."""
    await conn.execute("create extension citext")
    columns = (
        '"Key One" citext, "key\'2" uuid, "Änd""ers" text[], doc jsonb, raw json, spot point, wide numeric,'
        ' odd box, ci citext, primary key ("Key One", "key\'2")'
    )
    await make_table(conn, 'public."My ""Own"" Table"', columns=columns)
    key = "00000000-0000-4000-8000-000000000000"
    table = '"My ""Own"" Table"'
    await conn.execute(f"insert into {table} (\"Key One\", \"key'2\", ci) values ('a/b', '{key}', 'x')")
    await conn.execute(f"update {table} set doc = 'null', ci = 'X'")
    await conn.execute(
        f'update {table} set "Änd""ers" = \'{{"a,b",NULL}}\', raw = \'"\\u0000"\', spot = \'(1,2)\', wide = 1.0'
    )
    await conn.execute(f"update {table} set wide = 1.00, odd = '(1,1),(0,0)'")
    _, second, third, fourth = await events(conn)
    assert second == Event("updated", f"a/b/{key}", {"changes": {"doc": [None, None], "ci": ["x", "X"]}}, "system")
    assert third.details["changes"] == {
        'Änd"ers': [None, ["a,b", None]],
        "raw": [None, '"\\u0000"'],
        "spot": [None, "(1,2)"],
        "wide": [None, 1.0],
    }
    assert fourth.details["changes"] == {"wide": [1.0, 1.0], "odd": [None, "(1,1),(0,0)"]}


async def test_the_clients_settings_hide_no_change(conn: asyncpg.Connection) -> None:
    """Numbers keep all digits, times are in UTC, and a table in the client's own path does not replace ours."""
    await make_table(conn, columns="id int primary key, value float8, at timestamptz, raw bytea")
    await conn.execute("insert into gauge values (1, 0.1, '2026-01-05 12:00+00', 'a')")
    await conn.execute("set extra_float_digits = -15; set timezone = 'Asia/Tokyo'; set datestyle = 'German, DMY'")
    await conn.execute("set bytea_output = 'escape'; set intervalstyle = 'iso_8601'")
    await conn.execute("update gauge set value = 0.1 + 1e-16, at = at + interval '1 s', raw = 'b'")
    [_, event] = await events(conn)
    assert event.details["changes"] == {
        "value": [0.1, 0.1 + 1e-16],
        "at": ["2026-01-05T12:00:00+00:00", "2026-01-05T12:00:01+00:00"],
        "raw": ["\\x61", "\\x62"],
    }


async def test_a_wide_row_is_recorded_whole(conn: asyncpg.Connection) -> None:
    """Postgres takes 100 arguments of a function; a row may have more columns, and long values."""
    columns = ", ".join(f"c{n} text" for n in range(150))
    await make_table(conn, columns=f"id int primary key, {columns}")
    await conn.execute("insert into gauge (id, c149) values (1, repeat('x', 8000))")
    [event] = await events(conn)
    assert len(event.details["new"]) == 151
    assert event.details["new"]["c149"] == "x" * 8000


async def test_a_change_that_fails_leaves_no_event(conn: asyncpg.Connection) -> None:
    """Event and change commit together; a savepoint undoes both."""
    await make_table(conn)
    with pytest.raises(asyncpg.UniqueViolationError):
        await conn.execute("insert into gauge values ('acme', 1), ('acme', 1)")
    async with conn.transaction():
        await conn.execute("insert into gauge values ('acme', 2)")
        await conn.execute("savepoint s; update gauge set value = 5; rollback to s")
    assert await events(conn) == [created(2)]


async def test_a_silence_is_recorded_and_other_work_on_alerts_is_not(conn: asyncpg.Connection) -> None:
    """Only one column of a busy table is configuration; service work on the others needs no actor."""
    await seed.tenant(conn)
    await conn.execute("set pulse.actor_id = ''")
    await conn.execute(
        "insert into alerts (tenant_id, fingerprint, rule_name, severity, message, opened_at)"
        " values ('acme', 'rule:1:boiler-1', 'hot', 'warning', 'hot', now())"
    )
    await conn.execute("update alerts set value = 7, silenced_until = null")
    silence = "update alerts set silenced_until = $1::timestamptz, value = 8"
    with pytest.raises(asyncpg.PostgresError, match=r"public\.alerts needs an actor"):
        await conn.execute(silence, seed.NOON)
    await conn.execute("set pulse.actor_id = 'alice'")
    await conn.execute(silence, seed.NOON)
    await conn.execute("delete from alerts")
    [row] = await rows(conn)
    assert (row["event_type"], row["entity_type"], row["actor_id"]) == ("config.alert_silenced", "alert", "alice")
    assert orjson.loads(row["details"]) == {"changes": {"silenced_until": [None, "2026-01-05T12:00:00+00:00"]}}
