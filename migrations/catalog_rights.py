"""Rights on pg_catalog that a hardened server revoked from PUBLIC and that Pulse's roles need."""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from psycopg import sql
from psycopg.rows import tuple_row

from migrations import layer_definitions, table_parts, tampering
from migrations.layer_catalog import Session
from migrations.role_names import RoleNames

_REVISIONS = Path(__file__).with_name("versions")
# Called by Python: asyncpg, Alembic, the exporter, the workers' listener and psql.
_CALLED_BY_CLIENTS = frozenset(
    [
        "array_agg",
        "col_description",
        "current_database",
        "current_setting",
        "format_type",
        "generate_series",
        "has_schema_privilege",
        "has_table_privilege",
        "obj_description",
        "pg_advisory_lock",
        "pg_advisory_unlock",
        "pg_advisory_xact_lock",
        "pg_backend_pid",
        "pg_has_role",
        "pg_notify",
        "row_number",
        "set_config",
        "string_agg",
        "to_regclass",
        "unnest",
        "version",
    ]
)
_READ_BY_CLIENTS = frozenset(
    [
        "pg_attribute",
        "pg_class",
        "pg_description",
        "pg_enum",
        "pg_index",
        "pg_namespace",
        "pg_proc",
        "pg_range",
        "pg_roles",
        "pg_settings",
        "pg_stat_activity",
        "pg_stat_replication",
        "pg_stat_user_tables",
        "pg_prepared_xacts",
        "pg_replication_slots",
        "pg_trigger",
        "pg_type",
        "pg_views",
        "pg_locks",
    ]
)

# Rights that initdb itself withholds from PUBLIC are in pg_init_privs and stay withheld.
_FUNCTIONS = """
select p.proname, p.oid::regprocedure::text
  from pg_proc p
 where p.pronamespace = 'pg_catalog'::regnamespace and p.proacl is not null
   and not exists (select from aclexplode(p.proacl) a where a.grantee = 0)
   and not exists (select from pg_init_privs i
                    where i.classoid = 'pg_proc'::regclass and i.objoid = p.oid
                      and not exists (select from aclexplode(i.initprivs) a where a.grantee = 0))
   and not has_function_privilege(%(role)s, p.oid, 'execute')
 order by 2
"""
_RELATIONS = """
select c.relname, format('pg_catalog.%%I', c.relname)
  from pg_class c
 where c.relnamespace = 'pg_catalog'::regnamespace and c.relkind in ('r', 'v')
   and exists (select from pg_init_privs i cross join aclexplode(i.initprivs) a
                where i.classoid = 'pg_class'::regclass and i.objoid = c.oid and i.objsubid = 0 and a.grantee = 0)
   and not has_table_privilege(%(role)s, c.oid, 'select')
 order by 2
"""
_LANGUAGES = """
select l.lanname, quote_ident(l.lanname) from pg_language l
 where l.lanname in ('sql', 'plpgsql') and not has_language_privilege(%(role)s, l.oid, 'usage')
 order by 2
"""
_VIEWS = """
select c.relname, pg_get_viewdef(c.oid)
  from pg_class c
 where c.relnamespace = 'pg_catalog'::regnamespace and c.relkind = 'v'
   and exists (select from pg_proc p
                where p.pronamespace = 'pg_catalog'::regnamespace and p.proacl is not null
                  and not has_function_privilege(%(role)s, p.oid, 'execute'))
"""
# On every other server the queries below are unnecessary.
_IS_HARDENED = """
select 'pg_catalog', 'pg_catalog'
 where not has_schema_privilege(%(role)s, 'pg_catalog', 'usage')
    or exists (select from pg_language l where lanname in ('sql', 'plpgsql')
                  and not exists (select from aclexplode(coalesce(l.lanacl, acldefault('l', l.lanowner))) a
                                   where a.grantee = 0))
    or exists (select from pg_proc p
                where p.pronamespace = 'pg_catalog'::regnamespace and p.proacl is not null
                  and not exists (select from aclexplode(p.proacl) a where a.grantee = 0)
                  and not exists (select from pg_init_privs i
                                   where i.classoid = 'pg_proc'::regclass and i.objoid = p.oid))
    or exists (select from pg_class c
                 join pg_init_privs i on i.classoid = 'pg_class'::regclass and i.objoid = c.oid and i.objsubid = 0
                where c.relnamespace = 'pg_catalog'::regnamespace and c.relacl is distinct from i.initprivs
                  and not exists (select from aclexplode(c.relacl) a
                                   where a.grantee = 0 and a.privilege_type = 'SELECT')
                  and exists (select from aclexplode(i.initprivs) a where a.grantee = 0))
"""
_SCHEMA = """
select nspname, nspname from pg_namespace n
 where nspname = 'pg_catalog' and not has_schema_privilege(%(role)s, n.oid, 'usage')
"""


def missing_rights(session: Session, names: RoleNames, layer: str) -> Iterator[sql.Composed]:
    """Yield the grants that the roles lack for the calls of revisions, layer and services. The roles must exist."""
    if not _rows(session, _IS_HARDENED, names.owner):
        return
    comparing = (names["auditor"], names["ops"])
    compared = _words([*layer_definitions.QUERIES, *table_parts.QUERIES, *tampering.QUERIES])
    texts = [layer, *(path.read_text(encoding="utf-8") for path in _REVISIONS.glob("*.sql"))]
    named = _words(texts)
    for role in (session.info.user, names.owner, *names.callers):
        words = _CALLED_BY_CLIENTS | (named if role in (names.owner, *names.callers) else frozenset())
        words |= compared if role in comparing else frozenset()
        relations = words | _READ_BY_CLIENTS
        # A view calls its functions with its reader's rights.
        definitions = [text for name, text in _rows(session, _VIEWS, role) if name in relations]
        functions = words | _words(definitions)
        for _, schema in _rows(session, _SCHEMA, role):
            yield _grant(f"usage on schema {schema}", role)
        if role == names.owner:
            for _, language in _rows(session, _LANGUAGES, role):
                yield _grant(f"usage on language {language}", role)
        for name, signature in _rows(session, _FUNCTIONS, role):
            if name in functions:
                yield _grant(f"execute on function {signature}", role)
        for name, relation in _rows(session, _RELATIONS, role):
            if name in relations:
                yield _grant(f"select on {relation}", role)


def _words(texts: Iterable[str]) -> frozenset[str]:
    return frozenset(word for text in texts for word in re.findall(r"\b[a-z_][a-z0-9_]*\b", text))


def _grant(right: str, role: str) -> sql.Composed:
    return sql.SQL("grant {} to {};\n").format(sql.SQL(right), sql.Identifier(role))


def _rows(session: Session, query: str, role: str) -> list[tuple[str, str]]:
    return session.cursor(row_factory=tuple_row).execute(query.encode(), {"role": role}).fetchall()
