"""Rules of the codebase that the database's own catalog can check."""

import re

import asyncpg

from migrations.layer_catalog import SCHEMAS
from tests.support.migrator import ROOT

SQL = ROOT / "sql"
LONGEST_FILE = 150
# The triggers of tracked and counted tables. They come after all functions that they call.
WITHOUT_OBJECTS = {"85_tracking"}

OURS = f"(n.nspname in ({', '.join(repr(name) for name in (*SCHEMAS, 'public'))}))"

# tenant_id leads every key, so that tables can be spread over machines by tenant. The exceptions and their reasons:
KEYS_WITHOUT_TENANT = {
    "alembic_version_pkc": "Alembic's own table",
    "sql_layer_pkey": "describes the database, not a tenant",
    "work_locks_pkey": "rows that are only locks",
    "blocks_pkey": "one log over all tenants: the order of the tree's leaves",
    "blocks_first_position_key": "the same order, counted in rows",
    "tree_nodes_pkey": "the place in the one tree",
    "checkpoints_pkey": "one log over all tenants",
    "sealer_pkey": "one row",
    "signing_keys_pkey": "keys of the one log",
    "tombstones_pkey": "months of the one log",
    "epochs_pkey": "servers of the one log",
    "verifications_pkey": "the one log, verified",
    "holds_pkey": "holds keep months, of all tenants",
    "retention_pkey": "one row",
    "installation_pkey": "one row",
    "tracked_tables_pkey": "describes tables, not tenants",
    "attack_findings_pkey": "attacks cross tenants",
    "attack_findings_open_key": "attacks cross tenants",
    "attack_detector_pkey": "one row",
}

UNCOMMENTED = f"""
select 'schema ' || n.nspname from pg_namespace n
 where {OURS} and n.nspname <> 'public' and obj_description(n.oid, 'pg_namespace') is null
union all
select 'relation ' || c.oid::regclass from pg_class c join pg_namespace n on n.oid = c.relnamespace
 where {OURS} and c.relkind in ('r', 'p', 'v') and not c.relispartition and obj_description(c.oid, 'pg_class') is null
union all
select 'column ' || c.oid::regclass || '.' || a.attname
  from pg_class c join pg_namespace n on n.oid = c.relnamespace join pg_attribute a on a.attrelid = c.oid
 where {OURS} and c.relkind in ('r', 'p') and not c.relispartition and a.attnum > 0 and not a.attisdropped
   and col_description(c.oid, a.attnum) is null
union all
select 'routine ' || p.oid::regprocedure from pg_proc p join pg_namespace n on n.oid = p.pronamespace
 where {OURS} and obj_description(p.oid, 'pg_proc') is null
union all
select 'trigger ' || t.tgname || ' on ' || t.tgrelid::regclass
  from pg_trigger t join pg_class c on c.oid = t.tgrelid
 where not t.tgisinternal and not c.relispartition and obj_description(t.oid, 'pg_trigger') is null
"""


async def column(conn: asyncpg.Connection, query: str) -> list[str]:
    """Return the first column of a query, sorted."""
    return sorted(row[0] for row in await conn.fetch(query))


async def test_everything_has_a_comment(conn: asyncpg.Connection) -> None:
    """Psql's own commands explain the database; a partition is explained by its parent."""
    assert await column(conn, UNCOMMENTED) == []


async def test_definer_functions_fix_their_search_path(conn: asyncpg.Connection) -> None:
    """A definer function that looks names up in the caller's path can be made to run the caller's code."""
    query = f"""
      select p.oid::regprocedure::text from pg_proc p join pg_namespace n on n.oid = p.pronamespace
       where {OURS} and p.prosecdef
         and not coalesce(p.proconfig @> array['search_path=pg_catalog, pg_temp'], false)"""
    assert await column(conn, query) == []


async def test_what_services_call_is_definer_or_reads_no_table(conn: asyncpg.Connection) -> None:
    """pulse_app has no rights on tables, so its functions must be definer or must not use tables."""
    query = f"""
      select p.oid::regprocedure::text from pg_proc p join pg_namespace n on n.oid = p.pronamespace
       where {OURS} and not p.prosecdef and has_function_privilege('pulse_app', p.oid, 'execute')
         and coalesce(pg_get_function_sqlbody(p.oid), p.prosrc) ~* '\\m(from|into|update|join)\\s+public\\.'"""
    assert await column(conn, query) == []


async def test_tenant_id_leads_every_key(conn: asyncpg.Connection) -> None:
    """Primary, unique and foreign keys, unique indexes included; the exceptions are explained above."""
    query = f"""
      select coalesce(k.conname, i.indexrelid::regclass::text)
        from (select conname, conrelid as relation, conkey[1] as first
                from pg_constraint where contype in ('p', 'u', 'f')
              union all
              select null, x.indrelid, x.indkey[0] from pg_index x where x.indisunique) k (conname, relation, first)
        join pg_class c on c.oid = k.relation and not c.relispartition
        join pg_namespace n on n.oid = c.relnamespace
        left join pg_index i
          on k.conname is null and i.indrelid = k.relation and i.indisunique and i.indkey[0] = k.first
        join pg_attribute a on a.attrelid = k.relation and a.attnum = k.first
       where {OURS} and a.attname <> 'tenant_id'"""
    found = {name.rpartition(".")[2] for name in await column(conn, query)}
    assert found == set(KEYS_WITHOUT_TENANT)


async def test_what_retention_deletes_is_found_by_key(conn: asyncpg.Connection) -> None:
    """A foreign key to a table that retention deletes from has an index that begins with it."""
    query = """
      select conname from pg_constraint k
       where contype = 'f' and confrelid = any(array['alerts', 'alert_events', 'notification_jobs']::regclass[])
         and not exists (
           select from pg_index i
            where i.indrelid = k.conrelid and i.indpred is null
              and (i.indkey::smallint[])[0:cardinality(k.conkey) - 1] @> k.conkey
         )"""
    assert await column(conn, query) == []


async def test_audit_log_has_no_foreign_keys(conn: asyncpg.Connection) -> None:
    """An event outlives the object that it describes."""
    query = "select conname from pg_constraint where contype = 'f' and conrelid = 'public.audit_log'::regclass"
    assert await column(conn, query) == []


async def test_no_table_depends_on_the_layer(conn: asyncpg.Connection) -> None:
    """No default, check, index, generated column or column type of a table comes from sql/."""
    query = """
      select distinct pg_describe_object(d.classid, d.objid, d.objsubid) || ' uses ' ||
                      pg_describe_object(d.refclassid, d.refobjid, 0)
        from pg_depend d
        left join pg_proc p on d.refclassid = 'pg_proc'::regclass and p.oid = d.refobjid
        left join pg_type t on d.refclassid = 'pg_type'::regclass and t.oid = d.refobjid
        left join pg_class v
          on v.relkind = 'v'
         and v.oid = coalesce(t.typrelid, case d.refclassid when 'pg_class'::regclass then d.refobjid end)
        join pg_namespace n on n.oid = coalesce(p.pronamespace, v.relnamespace)
        left join pg_class c on d.classid = 'pg_class'::regclass and c.oid = d.objid
       where n.nspname <> 'information_schema' and n.nspname not like 'pg\\_%'
         and (d.classid in ('pg_attrdef'::regclass, 'pg_constraint'::regclass) or c.relkind in ('r', 'p', 'i', 'I'))"""
    assert await column(conn, query) == []


async def test_the_layer_keeps_out_of_public(conn: asyncpg.Connection) -> None:
    """The layer puts only triggers and policies into public: functions and views there would not be dropped."""
    query = """
      select pg_describe_object('pg_proc'::regclass, oid, 0) from pg_proc where pronamespace = 'public'::regnamespace
      union all
      select oid::regclass::text from pg_class where relnamespace = 'public'::regnamespace and relkind in ('v', 'm')"""
    assert await column(conn, query) == []


async def test_schema_metrics_holds_views_only(conn: asyncpg.Connection) -> None:
    """Every object there is served as a metric."""
    query = """
      select oid::regclass::text from pg_class where relnamespace = 'metrics'::regnamespace and relkind <> 'v'
      union all
      select oid::regprocedure::text from pg_proc where pronamespace = 'metrics'::regnamespace"""
    assert await column(conn, query) == []


def test_sql_files_are_small_and_hold_one_object_of_their_name() -> None:
    """sql/20_ingest/record_readings.sql is where ingest.record_readings is, and nothing else.

    The first folder names the schema; folders below it only group the files of a large one.
    """
    wrong = []
    for file in SQL.rglob("*.sql"):
        text = file.read_text(encoding="utf-8")
        room = file.relative_to(SQL).parts[0]
        made = re.findall(r"^create (?:function|procedure|view|aggregate) ([\w.]+)", text, re.MULTILINE)
        named = made == [f"{room.partition('_')[2]}.{file.stem}"] and room not in WITHOUT_OBJECTS
        attached = made == [] and file.stem in text  # a trigger, a policy
        grants = made == [] and file.parent == SQL
        if text.count("\n") > LONGEST_FILE or not (named or attached or grants):
            wrong.append(str(file.relative_to(SQL)))
    assert wrong == []


def test_each_step_of_the_evaluation_says_what_it_holds() -> None:
    """The query of evaluator._advance is long: a reader follows the comments of its common table expressions."""
    text = (SQL / "30_evaluator" / "_advance.sql").read_text(encoding="utf-8")
    steps = re.findall(r"^  (?:with |\), )(\w+) as (?:(?:not )?materialized )?\((.*)$", text, re.MULTILINE)
    assert len(steps) > 15
    assert [step for step, rest in steps if not re.fullmatch(r"  -- \w.+", rest)] == []


def test_each_folder_of_sql_is_a_schema_of_the_layer() -> None:
    rooms = {path.name for path in SQL.iterdir() if path.is_dir()}
    assert {room.partition("_")[2] for room in rooms - WITHOUT_OBJECTS} == set(SCHEMAS)


async def test_the_readme_names_only_functions_and_files_that_exist(conn: asyncpg.Connection) -> None:
    page = (SQL / "README.md").read_text(encoding="utf-8")
    rows = await conn.fetch("select distinct pronamespace::regnamespace || '.' || proname from pg_proc")
    functions = {row[0] for row in rows}
    named = set(re.findall(r"`((?:" + "|".join(SCHEMAS) + r")\.\w+)\(", page))
    assert len(named) > 15
    assert named - functions == set()
    files = set(re.findall(r"\d\d_\w+(?:/[\w/]*\w\.sql|/|\.sql)", page))
    assert len(files) > 10
    assert {file for file in files if not (SQL / file).exists()} == set()
