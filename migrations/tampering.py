"""Detection of tampering that disables the audit trail's guards without touching a definition of the SQL layer.

It covers settings of roles and databases, event triggers, owners, attributes and memberships of roles, and grants to
foreign roles. The queries are in the client, because a superuser can replace a function in the database.
"""

import re
from collections import Counter
from typing import Any

from psycopg.rows import tuple_row

from migrations.layer_catalog import SCHEMAS, Session
from migrations.role_names import RoleNames
from migrations.role_plan import membership_pairs, planned_settings
from migrations.sql_layer import Layer

# As a default of a role or database, each of these hides changes or runs foreign code in every session.
_DANGEROUS = (
    *("session_replication_role", "row_security", "role", "session_authorization", "search_path"),
    *("session_preload_libraries", "local_preload_libraries", "synchronous_commit", "allow_system_table_mods"),
)
# No grant of Pulse limits the members of these roles.
_POWERFUL = (
    *("pg_read_all_data", "pg_write_all_data", "pg_execute_server_program", "pg_read_server_files"),
    *("pg_write_server_files", "pg_maintain", "pg_create_subscription"),
)

_FOUND = """
with ours (oid, name) as (select oid, rolname from pg_roles where rolname = any(%(ours)s)),
-- In public, only the tables that the layer's text names: users may have others there.
relation (oid, owner, acl, name) as (
  select c.oid, c.relowner, c.relacl,
         case c.relkind when 'v' then 'view ' when 'S' then 'sequence ' else 'table ' end
           || format('%%I.%%I', n.nspname, c.relname)
    from pg_class c join pg_namespace n on n.oid = c.relnamespace
   where c.relkind in ('r', 'p', 'v', 'S')
     and (n.nspname = any(%(schemas)s) or n.nspname = 'public' and (c.relname = any(%(tables)s) or c.relispartition
          and (select r.relname from pg_class r where r.oid = pg_partition_root(c.oid)) = any(%(tables)s)))
     and not exists (select from pg_depend d where (d.classid, d.objid, d.deptype) = ('pg_class'::regclass, c.oid, 'e'))
),
routine (owner, acl, name) as (
  select p.proowner, p.proacl, 'routine ' || format('%%I.%%I', n.nspname, p.proname)
    from pg_proc p join pg_namespace n on n.oid = p.pronamespace
   where n.nspname = any(%(schemas)s)
     and not exists (select from pg_depend d where (d.classid, d.objid, d.deptype) = ('pg_proc'::regclass, p.oid, 'e'))
)
select format('setting %%s of %%s', split_part(setting, '=', 1), concat_ws(' in ',
         case when s.setrole <> 0 then 'role ' || s.setrole::regrole::text
              when s.setdatabase = 0 then 'all roles' end,
         case when s.setdatabase <> 0 then 'database ' || current_database() end))
  from pg_db_role_setting s cross join unnest(s.setconfig) as setting
 where (s.setrole = 0 or s.setrole in (select oid from ours))
   and (s.setdatabase = 0 or s.setdatabase = (select oid from pg_database where datname = current_database()))
   and (split_part(setting, '=', 1) = any(%(dangerous)s) or setting like 'pulse.%%')
   and coalesce((select name from ours where oid = s.setrole) || ' ' || setting, '') <> all(%(planned)s)
   and setting not in ('session_replication_role=origin', 'row_security=on', 'synchronous_commit=on')
union all
select 'setting session_replication_role of the server'
 where (select reset_val from pg_settings where name = 'session_replication_role') not in ('origin', 'local')
   and not exists (select from pg_db_role_setting s cross join unnest(s.setconfig) as setting
                    where setting like 'session\\_replication\\_role=%%')
union all
select format('owner of schema %%I: %%s', nspname, nspowner::regrole) from pg_namespace
 where nspname = any(%(schemas)s) and nspowner <> %(owner)s::regrole
union all
select format('owner of %%s: %%s', name, owner::regrole) from relation where owner <> %(owner)s::regrole
union all
select format('attribute %%s of role %%I', word, r.rolname)
  from pg_roles r cross join lateral unnest(array[
         case when r.rolsuper then 'superuser' end, case when r.rolcreaterole then 'createrole' end,
         case when r.rolcreatedb then 'createdb' end, case when r.rolreplication then 'replication' end,
         case when r.rolbypassrls then 'bypassrls' end]) as word
 where r.oid in (select oid from ours) and word is not null
union all
select format('membership of %%I in %%I', u.name, g.rolname)
  from ours u join pg_auth_members m on m.member = u.oid join pg_roles g on g.oid = m.roleid
 where u.name || ' ' || g.rolname <> all(%(members)s)
   and (g.oid in (select oid from ours) or g.rolsuper or g.rolname = any(%(powerful)s))
union all
-- Users may be members of the reading roles. Only the migrating login may have the rights of owner and services.
select format('membership of %%I in %%I', u.rolname, g.name)
  from ours g join pg_auth_members m on m.roleid = g.oid join pg_roles u on u.oid = m.member
 where g.name <> all(%(for_people)s) and u.oid not in (select oid from ours) and not (u.rolsuper or u.rolcreaterole)
   and u.oid <> (select datdba from pg_database where datname = current_database())
union all
-- A foreign role may have grants to read. Grants to change or call are outside the matrix.
select distinct format('grant of %%s on %%s to %%s', lower(x.privilege_type), o.name,
                       coalesce(x.grantee::regrole::text, 'public'))
  from (select name, acl, owner from relation
        union all
        select name, acl, owner from routine
        union all
        select 'column ' || quote_ident(a.attname) || ' of ' || r.name, a.attacl, r.owner
          from relation r join pg_attribute a on a.attrelid = r.oid and a.attacl is not null
        union all
        select 'schema ' || quote_ident(nspname), nspacl, nspowner from pg_namespace where nspname = any(%(schemas)s)) o
 cross join aclexplode(o.acl) x
 where x.grantee <> o.owner and x.grantee <> 0 and x.grantee not in (select oid from ours)
   and x.privilege_type not in ('SELECT', 'USAGE')
union all
-- The layer's functions search pg_catalog only, where a better match would replace the intended function.
select format('routine %%s in pg_catalog', p.oid::regprocedure) from pg_proc p
 where p.pronamespace = 'pg_catalog'::regnamespace and p.oid >= 16384
   and not exists (select from pg_depend d where (d.classid, d.objid, d.deptype) = ('pg_proc'::regclass, p.oid, 'e'))
union all
select format('operator %%s in pg_catalog', o.oid::regoperator) from pg_operator o
 where o.oprnamespace = 'pg_catalog'::regnamespace and o.oid >= 16384
   and not exists (select from pg_depend d
                    where (d.classid, d.objid, d.deptype) = ('pg_operator'::regclass, o.oid, 'e'))
"""

# A provider's superuser has event triggers in each database, which its customers cannot drop. There, another role owns
# the database.
_EVENT_TRIGGERS = """
select format('event trigger %%I of %%I, which calls %%s', e.evtname, r.rolname, e.evtfoid::regproc),
       not r.rolsuper or r.rolname = any(%(ours)s)
         or r.oid in (select datdba from pg_database where datname = current_database())
         or exists (select from pg_proc p where p.oid = e.evtfoid
                     and (p.pronamespace::regnamespace::text = any(%(schemas)s)
                          or p.proowner in (select oid from pg_roles where rolname = any(%(ours)s))))
  from pg_event_trigger e join pg_roles r on r.oid = e.evtowner
 where e.evtenabled <> 'D'
   and not exists (select from pg_depend d
                    where (d.classid, d.objid, d.deptype) = ('pg_event_trigger'::regclass, e.oid, 'e'))
 order by 1
"""

_BODIES = """
select n.nspname || '.' || p.proname, p.prosrc
  from pg_proc p join pg_namespace n on n.oid = p.pronamespace
 where n.nspname = any(%(schemas)s) and p.prokind in ('f', 'p') and p.prosqlbody is null
   and not exists (select from pg_depend d where (d.classid, d.objid, d.deptype) = ('pg_proc'::regclass, p.oid, 'e'))
"""

_TRACKED = """
select w.table_name
  from audit.tracked_tables w
  left join (
    select n.nspname, c.relname, count(*) as triggers
      from pg_trigger t join pg_class c on c.oid = t.tgrelid join pg_namespace n on n.oid = c.relnamespace
      join pg_proc p on p.oid = t.tgfoid join pg_namespace r on r.oid = p.pronamespace
     where t.tgenabled in ('O', 'A') and r.nspname = 'audit' and p.proname in ('_capture_changes', '_capture_truncate')
     group by 1, 2
  ) g on array[g.nspname::text, g.relname::text] = parse_ident(w.table_name)
 where coalesce(g.triggers, 0) < case when w.only_columns is null then 4 else 2 end
 order by 1
"""
_STRING_BODY = re.compile(
    r"^create (?:or replace )?(?:function|procedure) ([a-z_]+\.[a-z_0-9]+)\(.*?^(?:as )?(\$\w*\$)(.*?)\2",
    re.MULTILINE | re.DOTALL,
)
QUERIES = (_FOUND, _EVENT_TRIGGERS, _BODIES, _TRACKED)
"""Queries of an auditor's login, for which a hardened server may withhold rights."""


def find_tampering(session: Session, body: str) -> tuple[list[str], list[str]]:
    """Return what weakens the guards: settings, event triggers, owners, roles, grants, tables without their triggers.

    The second list has event triggers of a server's provider, which may be legitimate.
    """
    names = RoleNames.find()
    parameters: dict[str, Any] = {
        "ours": [names.owner, *names.callers],
        "owner": names.owner,
        "schemas": list(SCHEMAS),
        "tables": sorted(set(re.findall(r"\bpublic\.(\w+)", body))),
        "dangerous": list(_DANGEROUS),
        "planned": list(planned_settings(names)),
        "powerful": list(_POWERFUL),
        "for_people": [names[role] for role in ("auditor", "exporter", "operator")],
        "members": [f"{member} {role}" for member, role in membership_pairs(names)],
    }
    cursor = session.cursor(row_factory=tuple_row)
    found = sorted(name for (name,) in cursor.execute(_FOUND.encode(), parameters).fetchall())
    untracked = [
        f"disabled or missing triggers of tracked table {name}" for (name,) in cursor.execute(_TRACKED.encode())
    ]
    triggers = cursor.execute(_EVENT_TRIGGERS.encode(), parameters).fetchall()
    ours = [name for name, is_ours in triggers if is_ours]
    return [*found, *ours, *untracked], [f"{name}, is not Pulse's" for name, is_ours in triggers if not is_ours]


def find_other_bodies(session: Session, layer: Layer) -> list[str]:
    """Return the routines whose text differs from the checkout's; those with a parsed body have no text."""
    expected: dict[str, Counter[str]] = {}
    for _, file in layer.files():
        for name, _, text in _STRING_BODY.findall(file):
            expected.setdefault(name, Counter())[text] += 1
    found: dict[str, Counter[str]] = {}
    for name, text in session.cursor(row_factory=tuple_row).execute(_BODIES.encode(), {"schemas": list(SCHEMAS)}):
        found.setdefault(name, Counter())[text] += 1
    return [
        f"text of routine {name}, which is not the checkout's"
        for name in sorted(expected.keys() | found.keys())
        if expected.get(name) != found.get(name)
    ]
