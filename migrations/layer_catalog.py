"""The SQL layer's objects in a database's catalog, and their removal without cascading."""

import textwrap
from graphlib import TopologicalSorter
from typing import Any, TypeAlias

from psycopg import Connection, Error
from psycopg.rows import tuple_row

from migrations.role_names import RoleNames

Session: TypeAlias = Connection[Any]
Names: TypeAlias = dict[str, str | list[str]]

# Views, routines and triggers of these schemas belong to sql/, as does any trigger that calls one of the routines.
# In public, which holds objects of extensions and users, only policies on the owner's tables belong to it.
SCHEMAS = ("core", "audit", "ingest", "evaluator", "dispatcher", "delivery", "ops", "trace", "metrics", "api")

# Each statement drops one object that is attached to a table and has no dependents.
_ATTACHED = """
select format('drop trigger %%I on %%I.%%I', t.tgname, n.nspname, c.relname)
  from pg_trigger t join pg_class c on c.oid = t.tgrelid join pg_namespace n on n.oid = c.relnamespace
 where not t.tgisinternal and t.tgparentid = 0
   and (n.nspname = any(%(schemas)s) or exists (select from pg_proc p join pg_namespace r on r.oid = p.pronamespace
                                                 where p.oid = t.tgfoid and r.nspname = any(%(schemas)s)))
   and not exists (select from pg_depend d where (d.classid, d.objid, d.deptype) = ('pg_trigger'::regclass, t.oid, 'e'))
union all
select format('drop policy %%I on %%I.%%I', p.polname, n.nspname, c.relname)
  from pg_policy p join pg_class c on c.oid = p.polrelid join pg_namespace n on n.oid = c.relnamespace
 where (n.nspname = any(%(schemas)s) or n.nspname = 'public' and c.relowner = %(owner)s::regrole)
"""

# Grants are revoked with their layer, so that a downgrade does not keep a newer layer's grants on the tables.
_GRANTS = """
select format('revoke all on %%s %%I.%%I from public, %%s',
              case c.relkind when 'S' then 'sequence' else 'table' end, n.nspname, c.relname, %(callers)s::text)
  from pg_class c join pg_namespace n on n.oid = c.relnamespace
 where c.relowner = %(owner)s::regrole and c.relkind in ('r', 'p', 'S')
   and (n.nspname = any(%(schemas)s) or n.nspname = 'public')
   and (c.relacl is not null or exists (select from pg_attribute a where a.attrelid = c.oid and a.attacl is not null))
union all
select format('revoke all on schema %%I from public, %%s', n.nspname, %(callers)s::text)
  from pg_namespace n where n.nspname = any(%(schemas)s) and n.nspacl is not null
union all
select format('alter default privileges for role %%I in schema %%I revoke all on %%s from public, %%s', %(owner)s::text,
              n.nspname, case d.defaclobjtype when 'r' then 'tables' when 'S' then 'sequences' else 'routines' end,
              %(callers)s::text)
  from pg_default_acl d join pg_namespace n on n.oid = d.defaclnamespace
 where d.defaclrole = %(owner)s::regrole and n.nspname = any(%(schemas)s) and d.defaclobjtype in ('r', 'S', 'f')
union all
select format('alter default privileges for role %%I grant execute on routines to public', %(owner)s::text)
  from pg_default_acl d
 where d.defaclrole = %(owner)s::regrole and d.defaclnamespace = 0 and d.defaclobjtype = 'f'
"""

_OBJECTS = """
select 'pg_class'::regclass::oid::text || ':' || c.oid, format('view %%I.%%I', n.nspname, c.relname)
  from pg_class c join pg_namespace n on n.oid = c.relnamespace
 where c.relkind = 'v' and n.nspname = any(%(schemas)s)
   and not exists (select from pg_depend d where (d.classid, d.objid, d.deptype) = ('pg_class'::regclass, c.oid, 'e'))
union all
select 'pg_proc'::regclass::oid::text || ':' || p.oid,
       format('routine %%I.%%I(%%s)', n.nspname, p.proname, pg_get_function_identity_arguments(p.oid))
  from pg_proc p join pg_namespace n on n.oid = p.pronamespace
 where n.nspname = any(%(schemas)s)
   and not exists (select from pg_depend d where (d.classid, d.objid, d.deptype) = ('pg_proc'::regclass, p.oid, 'e'))
"""

# A view depends on others through its rewrite rule; others may depend on its row type or that type's array.
_EDGES = """
with part (classid, objid, whole) as (
  select 'pg_proc'::regclass::oid, oid, 'pg_proc'::regclass::oid::text || ':' || oid from pg_proc
  union all
  select 'pg_class'::regclass, oid, 'pg_class'::regclass::oid::text || ':' || oid from pg_class where relkind = 'v'
  union all
  select 'pg_rewrite'::regclass, oid, 'pg_class'::regclass::oid::text || ':' || ev_class from pg_rewrite
  union all
  select 'pg_type'::regclass, t.oid, 'pg_class'::regclass::oid::text || ':' || c.oid
    from pg_class c join pg_type r on r.oid = c.reltype join pg_type t on t.oid in (r.oid, r.typarray)
   where c.relkind = 'v'
)
select distinct user_part.whole, used_part.whole
  from pg_depend d
  join part user_part on (user_part.classid, user_part.objid) = (d.classid, d.objid)
  join part used_part on (used_part.classid, used_part.objid) = (d.refclassid, d.refobjid)
 where user_part.whole <> used_part.whole
"""


# After a restore without owners: found before the first statement that the owner may not run.
_NOT_OWNED = """
select format('schema %%I belongs to %%I', nspname, nspowner::regrole::text) from pg_namespace
 where nspname = any(%(schemas)s) and nspowner <> %(owner)s::regrole
   and to_regclass('public.sql_layer') is not null
union all
select format('table %%s belongs to %%I', oid::regclass, relowner::regrole::text) from pg_class
 where oid in (to_regclass('public.alembic_version'), to_regclass('public.sql_layer'))
   and relowner <> %(owner)s::regrole
 order by 1
"""


class LayerError(Exception):
    """Raised if the SQL layer cannot be dropped or applied; the message names the object, or the file and line."""


def drop_layer(session: Session) -> frozenset[str]:
    """Drop every trigger, policy, view and routine of the layer, revoke its grants and return the dropped names.

    Never cascades: a table that depends on the layer raises an error before anything is lost.
    """
    roles = RoleNames.find()
    names: Names = {"schemas": list(SCHEMAS), "owner": roles.owner, "callers": ", ".join(roles.callers)}
    attached = [statement for query in (_ATTACHED, _GRANTS) for (statement,) in _rows(session, query, names)]
    objects = find_objects(session)
    for statement in [*attached, *(f"drop {thing}" for thing in objects)]:
        try:
            session.execute(statement.encode())
        except Error as error:
            raise LayerError(f"{statement}: {one_line(error)}") from error
    return frozenset(objects)


def require_owner(session: Session) -> None:
    """Raise LayerError if the schemas belong to another role, as after a restore without owners."""
    owner = RoleNames.find().owner
    for (fault,) in _rows(session, _NOT_OWNED, {"schemas": list(SCHEMAS), "owner": owner}):
        raise LayerError(
            f"{fault}, not to {owner}. Restore the dump again into an empty database, as {owner}:"
            f" pg_restore --no-owner --role={owner}, or PGOPTIONS='-c role={owner}' psql -f"
        )


def find_objects(session: Session) -> list[str]:
    """Return views and routines as `view api.alerts`, `routine core.now()`, each before those it depends on."""
    objects = {row[0]: row[1] for row in _rows(session, _OBJECTS, {"schemas": list(SCHEMAS)})}
    order: TopologicalSorter[str] = TopologicalSorter(dict.fromkeys(objects, ()))
    for user, used in _rows(session, _EDGES, {}):
        if user in objects and used in objects:
            order.add(used, user)
    return [objects[key] for key in order.static_order()]


def one_line(error: Error) -> str:
    """Return the server's message in one line, cut because an unclosed quote is reported with all text after it."""
    parts = (error.diag.message_primary or str(error), error.diag.message_detail, error.diag.message_hint)
    return " ".join(textwrap.shorten(part, width=300) for part in parts if part)


def _rows(session: Session, query: str, names: Names) -> list[tuple[str, ...]]:
    return session.cursor(row_factory=tuple_row).execute(query.encode(), names).fetchall()
