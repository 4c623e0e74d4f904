"""The definitions of the SQL layer in the catalog, and their differences from the recorded ones.

Each object has several entries, so that a difference is specific: `view api.alerts`, `comment on view api.alerts`,
`grants on view api.alerts`. Roles are written by the last word of their name, without the prefix. All partitions of a
table share entries. Triggers of tracked tables are compared with `audit.tracked_tables`: `audit.track` adds some later.
"""

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from psycopg.rows import tuple_row

from migrations.layer_catalog import SCHEMAS, Session
from migrations.role_names import RoleNames

_ABOUT = re.compile(r"^(comment on|grants on|owner of) ")
# Reading a view's definition waits behind an exclusive lock on the view or one of its tables.
LOCK_SECONDS = 1
# Settings that affect the text of definitions, including constants of all types.
_SETTINGS = {
    "search_path": "pg_catalog, pg_temp",
    "quote_all_identifiers": "off",
    "standard_conforming_strings": "on",
    "datestyle": "ISO, YMD",
    "intervalstyle": "postgres",
    "timezone": "UTC",
    "extra_float_digits": "1",
    "bytea_output": "hex",
    "lc_monetary": "C",
    "lock_timeout": f"{LOCK_SECONDS}s",
}
# Number of differences that a line names.
SHOWN = 10

_ENTRIES = """
with role (oid, name) as (
  select oid, regexp_replace(rolname, '^.*_', '') from pg_roles where rolname = any(%(callers)s)
  union all
  select 0, 'public'
),
relation as (
  select c.oid, c.relkind, c.relacl, c.relowner, c.reloptions, c.relispartition, c.relrowsecurity,
         c.relforcerowsecurity, case c.relkind when 'v' then 'view' when 'S' then 'sequence' else 'table' end as kind,
         case when c.relispartition then 'partitions of ' || pg_partition_root(c.oid)::regclass::text
           else format('%%I.%%I', n.nspname, c.relname) end as name
    from pg_class c join pg_namespace n on n.oid = c.relnamespace
   where c.relkind in ('r', 'p', 'v', 'S')
     and (n.nspname = any(%(schemas)s) or n.nspname = 'public' and c.relowner = %(owner)s::regrole and c.relkind <> 'v')
     and not exists (select from pg_depend d where (d.classid, d.objid, d.deptype) = ('pg_class'::regclass, c.oid, 'e'))
),
routine as (
  select p.oid, p.prokind, p.proacl, p.proowner, n.nspname, p.proname,
         format('routine %%I.%%I(%%s)', n.nspname, p.proname, pg_get_function_identity_arguments(p.oid)) as name
    from pg_proc p join pg_namespace n on n.oid = p.pronamespace
   where n.nspname = any(%(schemas)s)
     and not exists (select from pg_depend d where (d.classid, d.objid, d.deptype) = ('pg_proc'::regclass, p.oid, 'e'))
),
trigger_ as (
  select t.oid, t.tgname, t.tgrelid,
         format('trigger %%I on ', t.tgname)
           || coalesce(r.name, format('%%I.%%I', n.nspname, c.relname)) as name,
         case when c.relispartition
           then replace(pg_get_triggerdef(t.oid), format(' ON %%I.%%I ', n.nspname, c.relname), ' ON partition ')
           else pg_get_triggerdef(t.oid) end || ' ' || t.tgenabled::text as definition
    from pg_trigger t join pg_class c on c.oid = t.tgrelid join pg_namespace n on n.oid = c.relnamespace
    left join relation r on r.oid = c.oid
   where not t.tgisinternal
     and (n.nspname = any(%(schemas)s) or t.tgfoid in (select oid from routine))
     and t.tgfoid not in (select oid from routine where (nspname, proname)
                                                     in (('audit', '_capture_changes'), ('audit', '_capture_truncate')))
     and not exists (select from pg_depend d
                      where (d.classid, d.objid, d.deptype) = ('pg_trigger'::regclass, t.oid, 'e'))
),
acl (name, acl) as (
  select kind || ' ' || name, relacl from relation where relacl is not null
  union all
  select format('column %%s.%%I', r.name, a.attname), a.attacl
    from relation r join pg_attribute a on a.attrelid = r.oid and a.attacl is not null
  union all
  select name, coalesce(proacl, acldefault('f', proowner)) from routine
  union all
  select format('schema %%I', nspname), nspacl from pg_namespace
   where nspname = any(%(schemas)s) and nspacl is not null
)
select kind || ' ' || name, concat_ws(' ', pg_get_viewdef(oid), reloptions::text) from relation where kind = 'view'
union all
select format('rule %%I on view %%s', w.rulename, r.name), pg_get_ruledef(w.oid)
  from pg_rewrite w join relation r on r.oid = w.ev_class and r.kind = 'view' where w.rulename <> '_RETURN'
union all
select r.name, case when r.prokind <> 'a' then pg_get_functiondef(r.oid) else (
         select concat_ws(' ', g.aggkind::text, g.aggtransfn, g.aggfinalfn, g.aggtranstype::regtype, g.agginitval)
           from pg_aggregate g where g.aggfnoid = r.oid) end
  from routine r
union all
select t.name, string_agg(distinct t.definition, E'\\n')
  from trigger_ t where not exists (select from relation r where r.oid = t.tgrelid and r.relispartition) group by t.name
union all
-- On partitions: the definitions there are, and the number of partitions that lack it.
select t.name, string_agg(distinct t.definition, E'\\n') || ' '
       || ((select count(*) from relation o where o.name = min(r.name)) - count(*))::text
  from trigger_ t join relation r on r.oid = t.tgrelid and r.relispartition group by t.name
union all
select format('policy %%I on %%s', p.polname, r.name), concat_ws(' ',
         p.polcmd::text, p.polpermissive, pg_get_expr(p.polqual, p.polrelid), pg_get_expr(p.polwithcheck, p.polrelid),
         (select string_agg(coalesce(o.name, u.rolname), ',' order by 1)
            from unnest(p.polroles) m (oid) left join role o on o.oid = m.oid left join pg_roles u on u.oid = m.oid),
         r.relrowsecurity, r.relforcerowsecurity)
  from pg_policy p join relation r on r.oid = p.polrelid
union all
select 'comment on ' || o.name || coalesce('.' || quote_ident(a.attname), ''), d.description
  from (select 'pg_class'::regclass as class, oid, kind || ' ' || name as name from relation where kind = 'view'
        union all select 'pg_proc'::regclass, oid, name from routine
        union all select 'pg_trigger'::regclass, oid, name from trigger_
        union all select 'pg_policy'::regclass, p.oid, format('policy %%I on %%s', p.polname, r.name)
                    from pg_policy p join relation r on r.oid = p.polrelid) o
  join pg_description d on d.classoid = o.class and d.objoid = o.oid
  left join pg_attribute a on d.objsubid > 0 and a.attrelid = o.oid and a.attnum = d.objsubid
 where d.description is not null
union all
-- A definer's function runs as its owner, and a view reads tables as its owner.
select 'owner of ' || o.name, case o.owner when %(owner)s::regrole then 'owner' else o.owner::regrole::text end
  from (select 'view ' || name, relowner from relation where kind = 'view'
        union all select name, proowner from routine) o (name, owner)
union all
select 'grants on ' || a.name, string_agg(distinct concat_ws(' ', r.name, x.privilege_type, x.is_grantable), ', ')
  from acl a cross join aclexplode(a.acl) x join role r on r.oid = x.grantee group by a.name
union all
select format('default grants on %%s%%s', d.defaclobjtype, ' in schema ' || n.nspname),
       coalesce(string_agg(distinct concat_ws(' ', r.name, x.privilege_type, x.is_grantable), ', '), 'none')
  from pg_default_acl d
  left join pg_namespace n on n.oid = d.defaclnamespace
  left join aclexplode(d.defaclacl) x on true
  left join role r on r.oid = x.grantee
 where d.defaclrole = %(owner)s::regrole and (n.nspname = any(%(schemas)s) or d.defaclnamespace = 0)
 group by d.defaclobjtype, n.nspname
"""

# Foreign objects: a trigger that calls a function outside our schemas, a rule on a table, which can suppress a change,
# and forced row security, which hides rows from the owner's functions.
_FOREIGN = """
with owned (oid, name) as (
  select c.oid, format('%%I.%%I', n.nspname, c.relname)
    from pg_class c join pg_namespace n on n.oid = c.relnamespace
   where c.relkind in ('r', 'p') and c.relowner = %(owner)s::regrole
     and (n.nspname = 'public' or n.nspname = any(%(schemas)s))
)
select format('trigger %%I on %%I.%%I, which calls %%I.%%I()', t.tgname, n.nspname, c.relname, r.nspname, p.proname)
  from pg_trigger t join pg_class c on c.oid = t.tgrelid join pg_namespace n on n.oid = c.relnamespace
  join pg_proc p on p.oid = t.tgfoid join pg_namespace r on r.oid = p.pronamespace
 where not t.tgisinternal and t.tgparentid = 0 and n.nspname = 'public' and c.relowner = %(owner)s::regrole
   and r.nspname <> all(%(schemas)s)
   and not exists (select from pg_depend d where (d.classid, d.objid, d.deptype) = ('pg_trigger'::regclass, t.oid, 'e'))
union all
select format('rule %%I on %%s', w.rulename, o.name) from pg_rewrite w join owned o on o.oid = w.ev_class
union all
select 'row security of ' || o.name from pg_class c join owned o on o.oid = c.oid
 where c.relrowsecurity or c.relforcerowsecurity
 order by 1
"""
QUERIES = (_ENTRIES, _FOREIGN)


def record_definitions(session: Session) -> dict[str, Any]:
    """Return the record of an applied layer: the server's major version and a digest of each entry."""
    with plain_names(session):
        digests, tracked = _digests(session), sorted(_tracked(session))
    return {"postgres": session.info.server_version // 10000, "definitions": digests, "tracked": tracked}


def find_faults(session: Session, recorded: dict[str, Any]) -> list[str]:
    """Return the missing, altered and added entries of a recorded layer. Raises LockNotAvailable."""
    with plain_names(session):
        tracking = _tracking_faults(session)
    return [*compare_definitions(session, recorded), *tracking]


def compare_definitions(session: Session, recorded: dict[str, Any]) -> list[str]:
    """Do the same without calling a function of the layer. Raises LockNotAvailable."""
    with plain_names(session):
        before, now = recorded["definitions"], _digests(session)
        # Pulse's own tables only: users may stop tracking theirs.
        lost = [name for name in recorded.get("tracked", ()) if f"table {name}" in recorded.get("tables", ())]
        untracked = sorted(set(lost) - _tracked(session))
    return [
        *(f"missing {name}" for name in _objects(before.keys() - now.keys())),
        *(f"altered {name}" for name in sorted(before.keys() & now.keys()) if before[name] != now[name]),
        *(f"added {name}" for name in _objects(now.keys() - before.keys())),
        *(f"no tracking of {name}" for name in untracked),
    ]


def why_not_comparable(session: Session, recorded: dict[str, Any] | None) -> str | None:
    """Return why the catalog cannot be compared with the record, None if it can."""
    if not recorded or "definitions" not in recorded:
        return "its definitions were not recorded"
    before, now = recorded.get("postgres"), session.info.server_version // 10000
    return None if before == now else f"its definitions were recorded on Postgres {before}, this is Postgres {now}"


def find_foreign_objects(session: Session) -> list[str]:
    """Return foreign objects on the owner's tables: triggers in public, rules, row security."""
    names = {"schemas": list(SCHEMAS), "owner": RoleNames.find().owner}
    return [name for (name,) in session.cursor(row_factory=tuple_row).execute(_FOREIGN.encode(), names).fetchall()]


def one_line_of(faults: list[str]) -> str:
    """Name the first faults and count the others."""
    more = f" and {len(faults) - SHOWN} more" if len(faults) > SHOWN else ""
    return ", ".join(faults[:SHOWN]) + more


@contextmanager
def plain_names(session: Session) -> Iterator[None]:
    """Make Postgres write names and constants in one form, and wait LOCK_SECONDS for a locked view."""
    with session.transaction(force_rollback=True):
        for name, value in _SETTINGS.items():
            session.execute("select set_config(%s, %s, true)", [name, value])
        yield


def _digests(session: Session) -> dict[str, str]:
    roles = RoleNames.find()
    names = {"schemas": list(SCHEMAS), "owner": roles.owner, "callers": list(roles.callers)}
    rows = session.cursor(row_factory=tuple_row).execute(_ENTRIES.encode(), names).fetchall()
    return {name: hashlib.sha256(text.encode()).hexdigest()[:32] for name, text in rows}


def _objects(names: set[str]) -> list[str]:
    """Drop the owner, grants and comment of objects that are listed themselves."""
    return sorted(name for name in names if not _ABOUT.match(name) or _ABOUT.sub("", name) not in names)


def _tracked(session: Session) -> set[str]:
    """Return the tracked tables, the only ones on which a layer creates triggers."""
    cursor = session.cursor(row_factory=tuple_row)
    if cursor.execute("select to_regclass('audit.tracked_tables') is null").fetchone() == (True,):
        return set()
    return {name for (name,) in cursor.execute("select table_name from audit.tracked_tables").fetchall()}


def _tracking_faults(session: Session) -> list[str]:
    """Return the missing triggers of audit.track(), if the layer has it."""
    cursor = session.cursor(row_factory=tuple_row)
    if cursor.execute("select to_regprocedure('audit._tracking_faults()') is null").fetchone() == (True,):
        return []
    rows = cursor.execute("select trigger_name, table_name from audit._tracking_faults()")
    return [f"missing or altered trigger {trigger} on {table}" for trigger, table in rows]
