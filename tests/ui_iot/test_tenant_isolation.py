"""Each role sees only its tenant's rows, none without a tenant, and cannot bypass the views."""

import random
from collections.abc import AsyncIterator, Callable
from typing import Any

import asyncpg
import orjson
import pytest

from migrations.layer_catalog import SCHEMAS
from tests.support.api_pages import fill
from tests.support.sealer import Seal

SEED = 5
TENANTS = ("acme", "rival")
# Settings that name no tenant: missing, mistyped or hostile values.
NOBODY = (
    *(
        None,
        "",
        " ",
        "system",
        "nobody",
        "ACME",
        "acme ",
        "acm",
        "%",
        "ac%",
        "_cme",
        "*",
        "null",
        "{acme}",
        "acme,rival",
    ),
    *("acme'", "' or true --", "acme' or 'a'='a", '"acme"', "acme\\", "$1", "é", "🙂", "x" * 5000),
)
TRACE = "ab" * 16
# Queue depths do not name a tenant.
WITHOUT_TENANT = {"api.queues"}

# Adds the tenant's name to rows that fill() creates without it.
NAMED = """
update notification_routes set name = '{tenant}' || route_id where tenant_id = '{tenant}';
update alert_events set actor = '{tenant}' where tenant_id = '{tenant}';
insert into suppressions (tenant_id, event_id, alert_id, reason, trace_id)
select tenant_id, event_id, alert_id, 'no_route', tenant_id from alert_events where tenant_id = '{tenant}';
insert into delivery_attempts (tenant_id, job_id, channel_id, attempt, lease_epoch, worker, outcome)
select tenant_id, job_id, channel_id, 1, 1, tenant_id, 'delivered' from notification_jobs where tenant_id = '{tenant}'
"""

READABLE = """
select format('%I.%I', n.nspname, c.relname) as name, n.nspname as schema, c.relispartition as is_partition
from pg_class c
join pg_namespace n on n.oid = c.relnamespace
where c.relkind in ('r', 'p', 'v', 'm', 'f')
  and n.nspname = any ($2)
  and has_any_column_privilege($1, c.oid, 'select')
order by 1
"""


@pytest.fixture
async def crowd(conn: asyncpg.Connection, seal: Seal) -> None:
    """Two tenants with rows in every list, each containing its tenant's name, and sealed audit events."""
    for tenant in TENANTS:
        await fill(conn, tenant, 3)
        await conn.execute(NAMED.format(tenant=tenant))
        await conn.execute(
            "select audit.write(array[audit.event($1, 'alert.opened', p_message => $1, p_trace_id => $2)])",
            tenant,
            TRACE,
        )
    await conn.execute("select ops.ensure_partitions()")
    await seal()


@pytest.fixture
async def app(app_url: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection as pulse_app."""
    connection = await asyncpg.connect(app_url)
    yield connection
    await connection.close()


async def readable(conn: asyncpg.Connection, role: str) -> list[asyncpg.Record]:
    """Return every relation of ours of which a role may read a column, by a grant to it or to everybody."""
    return list(await conn.fetch(READABLE, role, [*SCHEMAS, "public"]))


async def rows_as(connection: asyncpg.Connection, name: str, tenant: str | None) -> list[str]:
    """Return all rows of a relation, as text, in a transaction of the tenant."""
    async with connection.transaction(readonly=True):
        if tenant is not None:
            await connection.execute("select set_config('pulse.tenant_id', $1, true)", tenant)
        return [row[0] for row in await connection.fetch(f"select to_jsonb(r)::text from {name} r")]


async def test_each_role_reads_only_through_its_door(conn: asyncpg.Connection, crowd: None) -> None:
    """Roles read views but no tables, except the auditor's trail and proof. Partitions are not readable."""
    expected = {
        "pulse_app": {"api", "metrics"},
        "pulse_ui": {"api"},
        "pulse_evaluator": {"api"},
        "pulse_dispatcher": {"api"},
        "pulse_delivery": {"api"},
        "pulse_ops": {"api", "audit", "public"},
        "pulse_exporter": {"metrics"},
        "pulse_auditor": {"audit", "public"},
    }
    for role, schemas in expected.items():
        found = await readable(conn, role)
        assert {row["schema"] for row in found} == schemas, role
        assert not [row["name"] for row in found if row["is_partition"]], role
    # The recorded SQL layer is not secret.
    for role, tables in (
        ("pulse_auditor", {"public.audit_log", "public.sql_layer"}),
        ("pulse_ops", {"public.sql_layer"}),
    ):
        assert {row["name"] for row in await readable(conn, role) if row["schema"] == "public"} == tables
    # The ops role verifies with hashes and signatures, without reading events.
    assert {row["name"] for row in await readable(conn, "pulse_ops") if row["schema"] == "audit"} == {
        "audit.block_headers",
        "audit.log_checkpoints",
        "audit.log_keys",
        "audit.log_nodes",
        "audit.log_tombstones",
        "audit.tracked_tables",
    }
    partitions = await conn.fetchval("select count(*) from pg_class where relispartition and relkind = 'r'")
    assert partitions > 5


async def test_no_column_of_a_partition_is_granted(conn: asyncpg.Connection, crowd: None) -> None:
    """A grant on one column allows reading it, and pg_class does not show it."""
    rows = await conn.fetch(
        "select a.attrelid::regclass::text from pg_attribute a join pg_class c on c.oid = a.attrelid"
        " where c.relispartition and a.attacl is not null"
    )
    assert rows == []


async def test_every_api_view_asks_for_the_tenant(conn: asyncpg.Connection) -> None:
    """The view's text is checked, so that a new view cannot omit it."""
    rows = await conn.fetch(
        "select format('api.%I', c.relname) as name, pg_get_viewdef(c.oid) as text from pg_class c"
        " where c.relnamespace = 'api'::regnamespace and c.relkind = 'v'"
    )
    assert len(rows) > 10
    assert {row["name"] for row in rows if "core.current_tenant()" not in row["text"]} == WITHOUT_TENANT


async def test_no_setting_shows_a_row_of_another_tenant(
    conn: asyncpg.Connection, app: asyncpg.Connection, crowd: None
) -> None:
    """All that pulse_app may read is compared under valid, wrong and missing tenants, in random order."""
    relations = [row["name"] for row in await readable(conn, "pulse_app")] + [f"api.trace_timeline('{TRACE}')"]
    tries = [(name, tenant) for name in relations for tenant in (*TENANTS, *NOBODY)]
    random.Random(SEED).shuffle(tries)
    seen: dict[str, set[str]] = {tenant: set() for tenant in TENANTS}
    for name, tenant in tries:
        rows = await rows_as(app, name, tenant)
        own = tenant if tenant in TENANTS else None
        if name.startswith("api.") and name not in WITHOUT_TENANT and own is None:
            assert rows == [], (name, tenant)
        for foreign in set(TENANTS) - {own}:
            assert not [row for row in rows if f'"{foreign}' in row], (name, tenant)
        if own is not None and any(f'"{own}' in row for row in rows):
            seen[own].add(name)
    # Every view has rows of both tenants.
    views = {name for name in relations if name.startswith("api.")} - WITHOUT_TENANT
    assert seen == {"acme": views, "rival": views}


async def test_the_exporter_sees_no_tenant(
    conn: asyncpg.Connection, role_url: Callable[[str], str], crowd: None
) -> None:
    """Metrics cover all tenants. The tenant setting does not change them, and no label names a tenant."""
    exporter = await asyncpg.connect(role_url("pulse_exporter"))
    views = await readable(conn, "pulse_exporter")
    assert len(views) > 40
    for row in views:
        for tenant in (None, "acme", "%"):
            for text in await rows_as(exporter, row["name"], tenant):
                assert not [name for name in TENANTS if f'"{name}' in text], row["name"]
    await exporter.close()


async def test_the_trail_is_read_for_one_tenant_whatever_is_asked(
    conn: asyncpg.Connection, app: asyncpg.Connection, crowd: None
) -> None:
    """Forged filters and cursors, including those of another tenant, show no rows. No tenant is an error."""
    chance = random.Random(SEED)
    events = orjson.loads(await conn.fetchval("select audit.read_all_events(null, '{}', null, true, 1000)::text"))
    assert {event["tenant_id"] for event in events["events"]} >= {"acme", "rival"}
    names = ("block_no", "xid", "timestamp", "tenant_id", "event_id")
    places = [None, events["end"], *([event[name] for name in names] for event in events["events"])]
    shown: set[str] = set()
    for _ in range(150):
        tenant = chance.choice((*TENANTS, *NOBODY))
        matching: dict[str, Any] = chance.choice(
            ({}, {"tenant_id": "rival"}, {"entity_type": "%"}, {"trace_id": "ab" * 16}, {"event_type": "' or true --"})
        )
        async with app.transaction():
            if tenant is not None:
                await app.execute("select set_config('pulse.tenant_id', $1, true)", tenant)
            call = app.fetchval(
                "select audit.read_events($1::text::jsonb, $2::text::jsonb, $3, 200)::text",
                orjson.dumps(matching).decode(),
                orjson.dumps(chance.choice(places)).decode() if chance.random() < 0.7 else None,
                chance.random() < 0.5,
            )
            if tenant:
                found = orjson.loads(await call)
                tenants = {event["tenant_id"] for event in found["events"]}
                assert tenants <= {tenant}
                shown |= tenants
            else:
                with pytest.raises(asyncpg.PostgresError, match="no tenant is set"):
                    await call
    assert shown >= {"acme", "rival"}


@pytest.mark.parametrize("role", ["pulse_app", "pulse_ops", "pulse_exporter"])
async def test_what_is_blind_to_tenants_is_the_auditors(role_url: Callable[[str], str], role: str) -> None:
    connection = await asyncpg.connect(role_url(role))
    for call in (
        "audit.read_all_events(null, '{}', null, true, 10)",
        "audit._read_sealed(null, '{}', null, true, 10)",
        "audit._rows_between('1:1:', '9:9:')",
        "audit._indexed_rows(null, '{}', 10)",
        "audit.record_read('me', '{}', 0)",
    ):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute(f"select {call}")
    await connection.close()
