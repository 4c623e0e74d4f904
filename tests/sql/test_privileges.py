"""The rights of each role, compared with the checked-in matrix and tried.

After a deliberate change of a grant:
PULSE_TEST_REGENERATE=1 python -m pytest tests/sql/test_privileges.py, and read the diff.
"""

import os
from collections.abc import Callable
from pathlib import Path

import asyncpg
import pytest

from migrations.layer_catalog import SCHEMAS
from migrations.role_names import CALLERS
from services.shared import db

EXPECTED = Path(__file__).with_name("privileges.expected")
ROLES = tuple(f"pulse_{suffix}" for suffix in CALLERS)
# Granted by column, without the column that holds a secret.
SECRETS = {
    "public.api_keys": "key_hash",
    "public.devices": "token_hash",
    "public.notification_channels": "config",
    "public.installation": "fingerprint_key",
}
# Operators do not need these tables: internals of the proof and the detector, stored answers, counters and locks.
UNREAD = {
    "audit.tree_nodes",
    "audit.attack_detector",
    "ingest.idempotency_keys",
    "ingest.api_key_uses",
    "ingest.series_counts",
    "ops.work_locks",
}

HEADER = """\
# Every right on an object of Pulse that somebody other than its owner has: role, object, rights.
# Made by PULSE_TEST_REGENERATE=1 python -m pytest tests/sql/test_privileges.py
"""

RIGHTS = """
with object (name, acl, owner) as (
  select 'schema ' || nspname, coalesce(nspacl, acldefault('n', nspowner)), nspowner from pg_namespace n where {ours}
  union all
  select case c.relkind when 'v' then 'view ' when 'S' then 'sequence ' else 'table ' end || c.oid::regclass,
         coalesce(c.relacl, acldefault(case c.relkind when 'S' then 's'::"char" else 'r' end, c.relowner)), c.relowner
    from pg_class c join pg_namespace n on n.oid = c.relnamespace
   where {ours} and c.relkind in ('r', 'p', 'v', 'S', 'm')
  union all
  select 'column ' || c.oid::regclass || '.' || a.attname, a.attacl, c.relowner
    from pg_class c join pg_namespace n on n.oid = c.relnamespace join pg_attribute a on a.attrelid = c.oid
   where {ours} and a.attacl is not null
  union all
  select case p.prokind when 'p' then 'procedure ' else 'function ' end || n.nspname || '.' || p.proname,
         coalesce(p.proacl, acldefault('f', p.proowner)), p.proowner
    from pg_proc p join pg_namespace n on n.oid = p.pronamespace where {ours}
  union all
  select 'future ' || case d.defaclobjtype when 'r' then 'tables' when 'f' then 'functions' else 'others' end ||
         coalesce(' in ' || n.nspname, ''), d.defaclacl, d.defaclrole
    from pg_default_acl d left join pg_namespace n on n.oid = d.defaclnamespace
)
select distinct coalesce(r.rolname, 'PUBLIC') || '  ' || o.name || '  ' ||
       string_agg(distinct lower(a.privilege_type) || case when a.is_grantable then ' (grantable)' else '' end, ', ')
  from object o cross join aclexplode(o.acl) a left join pg_roles r on r.oid = a.grantee
 where a.grantee <> o.owner
 group by r.rolname, o.name
""".replace("{ours}", "n.nspname = any ($1)")


async def test_rights_are_those_of_the_matrix(conn: asyncpg.Connection) -> None:
    """A new function, view or grant shows up in the diff of one file."""
    found = sorted(row[0] for row in await conn.fetch(RIGHTS, [*SCHEMAS, "public"]))
    if os.environ.get("PULSE_TEST_REGENERATE"):
        EXPECTED.write_text(HEADER + "\n".join(found) + "\n", encoding="utf-8")
    expected = [line for line in EXPECTED.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    changed = [*(f"new: {line}" for line in set(found) - set(expected))]
    changed += [f"gone: {line}" for line in set(expected) - set(found)]
    assert not changed, "\n".join(
        [
            "rights differ from tests/sql/privileges.expected (role, object, rights):",
            *sorted(changed),
            "If that is meant: PULSE_TEST_REGENERATE=1 python -m pytest tests/sql/test_privileges.py; read the diff.",
        ]
    )


async def test_internal_functions_are_granted_to_no_service(conn: asyncpg.Connection) -> None:
    """Only the layer calls functions with a leading underscore; a reader may need one, but only through a view."""
    rows = await conn.fetch(
        "select p.oid::regprocedure::text from pg_proc p"
        " where p.proname like '\\_%' and p.pronamespace = any ($1::regnamespace[])"
        " and has_function_privilege('pulse_app', p.oid, 'execute') and not exists (select from pg_depend d"
        " where d.classid = 'pg_rewrite'::regclass and d.refclassid = 'pg_proc'::regclass and d.refobjid = p.oid)",
        list(SCHEMAS),
    )
    assert rows == []


async def test_nothing_is_granted_on_partitions(conn: asyncpg.Connection) -> None:
    """A right on a partition would bypass the parent's restrictions."""
    rows = await conn.fetch(
        "select c.oid::regclass::text, a.grantee::regrole::text from pg_class c cross join aclexplode(c.relacl) a"
        " where c.relispartition and a.grantee <> c.relowner"
    )
    assert rows == []


async def test_roles_have_no_special_attributes(conn: asyncpg.Connection) -> None:
    """No role of Pulse is a superuser, makes roles or databases, or replicates; each membership is intended."""
    rows = await conn.fetch(
        "select rolname, rolsuper or rolcreaterole or rolcreatedb or rolreplication or rolbypassrls, rolcanlogin,"
        " array(select m.roleid::regrole::text from pg_auth_members m where m.member = r.oid order by 1) as member"
        " from pg_roles r where rolname like 'pulse\\_%' and rolname not like 'pulse\\_test%' order by rolname"
    )
    assert [tuple(row) for row in rows] == [
        ("pulse_app", False, True, []),
        ("pulse_auditor", False, True, []),
        ("pulse_delivery", False, True, []),
        ("pulse_dispatcher", False, True, []),
        ("pulse_evaluator", False, True, []),
        ("pulse_exporter", False, True, []),
        ("pulse_operator", False, True, ["pg_read_all_stats"]),
        ("pulse_ops", False, True, []),
        ("pulse_owner", False, False, ["pg_read_all_stats", *sorted(ROLES)]),
        ("pulse_ui", False, True, []),
    ]


@pytest.mark.parametrize("role", ROLES)
async def test_no_role_changes_or_removes_audit_rows(role_url: Callable[[str], str], role: str) -> None:
    """This covers the rows, the table, the triggers, and statements on a partition."""
    connection = await asyncpg.connect(role_url(role))
    await connection.execute("set default_transaction_read_only = off")
    for statement in (
        "update public.audit_log set message = ''",
        "delete from public.audit_log",
        "truncate public.audit_log",
        "drop table public.audit_log",
        "alter table public.audit_log disable trigger all",
        "insert into public.audit_log_default select * from public.audit_log_default",
        "delete from public.audit_log_default",
        "set session_replication_role = replica",
        "set role pulse_owner",
    ):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute(statement)
    await connection.close()


@pytest.mark.parametrize("role", ROLES)
async def test_no_role_writes_a_table_or_reads_a_secret(
    conn: asyncpg.Connection, role_url: Callable[[str], str], role: str
) -> None:
    """Services use functions and views; only pulse_ui and pulse_app may insert columns, and only of audit_log."""
    tables = await conn.fetch(
        "select oid::regclass::text as name from pg_class"
        " where relkind in ('r', 'p') and relowner = 'pulse_owner'::regrole and not relispartition"
    )
    assert len(tables) > 30
    names = [row["name"] if "." in row["name"] else f"public.{row['name']}" for row in tables]
    may = {
        ("pulse_auditor", "public.audit_log"): {"select"},
        **{
            ("pulse_auditor", f"audit.{table}"): {"select"}
            for table in ("blocks", "tree_nodes", "checkpoints", "signing_keys", "tombstones", "holds")
        },
        # Verifiers compare the catalog with these tables.
        **{
            (verifier, table): {"select"}
            for verifier in ("pulse_auditor", "pulse_ops")
            for table in ("public.sql_layer", "audit.tracked_tables")
        },
        **{("pulse_operator", name): {"select"} for name in names if name not in {*UNREAD, *SECRETS}},
    }
    for qualified in names:
        rights = {
            right
            for right in ("select", "insert", "update", "delete", "truncate", "references", "trigger")
            if await conn.fetchval("select has_table_privilege($1, $2, $3)", role, qualified, right)
        }
        assert (qualified, rights) == (qualified, may.get((role, qualified), set()))
    for table, column in SECRETS.items():
        assert not await conn.fetchval("select has_column_privilege($1, $2, $3, 'select')", role, table, column)


@pytest.mark.parametrize(
    "call",
    [
        "lease_seal('evil', 10)",
        "append_blocks('evil', 1, '[]', '{}', '{}', '{}', '{}')",
        "cut_log('evil', 1, 0)",
        "read_head()",
        "read_unsealed(1)",
        "read_segment('2026-01-01', -1, 1)",
        "retention_candidate(400)",
        "set_retention(30)",
        "drop_segment('2026-01-01', 400, null)",
        "read_tombstones()",
        "record_retention_run()",
        "report_broken_log('evil')",
        "detect_attacks()",
    ],
)
async def test_sealing_and_dropping_are_the_ops_workers(
    conn: asyncpg.Connection, app_pool: db.Pool, ops_pool: db.Pool, call: str
) -> None:
    """An attacker in control of another service's SQL can do neither."""
    with pytest.raises(asyncpg.InsufficientPrivilegeError, match=f"for function {call.partition('(')[0]}"):
        await app_pool.execute(f"select audit.{call}")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await app_pool.execute("set role pulse_ops")
    await conn.execute("select audit.set_retention(400)")
    await ops_pool.execute(f"select audit.{call}")


async def test_exporter_is_bounded(role_url: Callable[[str], str]) -> None:
    """A scrape cannot write, run for long, wait for a lock, or take more than two connections."""
    first, second = [await asyncpg.connect(role_url("pulse_exporter")) for _ in range(2)]
    with pytest.raises(asyncpg.TooManyConnectionsError):
        await asyncpg.connect(role_url("pulse_exporter"))
    settings = {
        name: await first.fetchval("select current_setting($1)", name)
        for name in ("default_transaction_read_only", "statement_timeout", "lock_timeout", "search_path")
    }
    assert settings == {
        "default_transaction_read_only": "on",
        "statement_timeout": "10s",
        "lock_timeout": "1s",
        "search_path": "pg_catalog",
    }
    await first.close()
    await second.close()


async def test_every_metric_and_audit_view_runs_for_its_reader(
    conn: asyncpg.Connection, role_url: Callable[[str], str]
) -> None:
    """A view runs as its owner and its functions as the reader, so both rights must exist."""
    readers = {
        "pulse_exporter": ["metrics"],
        "pulse_auditor": ["audit"],
        "pulse_app": ["api", "metrics"],
        "pulse_ui": ["api"],
    }
    readers["pulse_operator"] = ["api", "audit", "metrics", "ops"]
    for role, schemas in readers.items():
        names = await conn.fetch(
            "select oid::regclass::text as name from pg_class"
            " where relkind = 'v' and relnamespace = any ($1::regnamespace[])",
            schemas,
        )
        assert names != []
        reader = await asyncpg.connect(role_url(role))
        for row in names:
            await reader.fetch(f"select * from {row['name']} limit 1")
        await reader.close()


async def test_a_view_made_by_hand_is_a_metric(conn: asyncpg.Connection, role_url: Callable[[str], str]) -> None:
    """`create view` as pulse_owner is enough for the exporter to read it."""
    await conn.execute("set role pulse_owner; create view metrics.answer as select 42.0::float8 as value; reset role")
    exporter = await asyncpg.connect(role_url("pulse_exporter"))
    assert await exporter.fetchval("select value from metrics.answer") == 42.0
    await exporter.close()


async def test_a_function_made_by_hand_is_granted_to_no_service(conn: asyncpg.Connection) -> None:
    """Postgres grants EXECUTE to PUBLIC by default."""
    await conn.execute("set role pulse_owner; create function ops.leak() returns int language sql return 1; reset role")
    assert not await conn.fetchval("select has_function_privilege('pulse_app', 'ops.leak()', 'execute')")
