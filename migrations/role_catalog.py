"""The roles of an installation in the server's catalog, read before any change."""

from collections.abc import Mapping
from dataclasses import dataclass

from psycopg.rows import class_row, tuple_row

from migrations.layer_catalog import Session
from migrations.role_names import RoleNames

# A role restored without its comment still has these.
_KNOWN_SETTINGS = (
    *("jit", "default_transaction_read_only", "statement_timeout", "lock_timeout", "search_path"),
    *("idle_in_transaction_session_timeout", "log_parameter_max_length", "log_parameter_max_length_on_error"),
)
_ROLES = """
select r.rolname as name, r.rolcanlogin as can_login, r.rolconnlimit as connection_limit,
       coalesce(shobj_description(r.oid, 'pg_authid'), '') as comment,
       array_remove(array[
         case when r.rolsuper then 'is a superuser' end,
         case when r.rolcreaterole then 'creates roles' end,
         case when r.rolcreatedb then 'creates databases' end,
         case when r.rolreplication then 'replicates' end,
         case when r.rolbypassrls then 'bypasses row security' end,
         case when exists (
           select from pg_db_role_setting s cross join unnest(s.setconfig) as setting
            where s.setrole = r.oid and s.setdatabase = 0 and split_part(setting, '=', 1) <> all (%(known)s)
         ) then 'has settings' end,
         (select 'is a member of ' || string_agg(g.rolname, ', ' order by g.rolname)
            from pg_auth_members m join pg_roles g on g.oid = m.roleid
           where m.member = r.oid and g.rolname <> all (%(ours)s)
             and g.rolname not in ('pg_read_all_stats', 'pg_monitor', 'pg_signal_backend')),
         (select 'has the member ' || string_agg(u.rolname, ', ' order by u.rolname)
            from pg_auth_members m join pg_roles u on u.oid = m.member
           where m.roleid = r.oid and not m.admin_option and u.rolname <> current_user
             and u.rolname <> all (%(ours)s)),
         case when exists (
           select from pg_shdepend d
            where d.refclassid = 'pg_authid'::regclass and d.refobjid = r.oid
              and case d.dbid
                    when 0 then (d.classid, d.objid, d.deptype) <> ('pg_database'::regclass, %(database)s::oid, 'a')
                    when %(database)s::oid then d.deptype = 'o' and not %(migrated)s
                    else true end
         ) then 'owns or uses objects of others' end
       ], null) as foreign_traits,
       array_remove(array[
         case when r.rolsuper then 'superuser' end,
         case when r.rolcreaterole then 'createrole' end,
         case when r.rolcreatedb then 'createdb' end,
         case when r.rolreplication then 'replication' end,
         case when r.rolbypassrls then 'bypassrls' end
       ], null) as special_attributes
  from pg_roles r where r.rolname = any (%(ours)s)
"""

_DATABASE = """
select current_user::text, d.datname::text, d.oid,
       exists (select from pg_class c
                 join pg_namespace n on n.oid = c.relnamespace join pg_roles r on r.oid = c.relowner
                where (n.nspname, c.relname, r.rolname) = ('public', 'alembic_version', %(owner)s)),
       array(select a.privilege_type from aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) a
              where a.grantee = 0),
       array(select r.rolname || ' ' || a.privilege_type
               from aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) a
               join pg_roles r on r.oid = a.grantee),
       (select nspname::text from pg_namespace where nspname = 'public')
  from pg_database d where d.datname = current_database()
"""

_SETTINGS = """
select r.rolname || ' ' || split_part(setting, '=', 1)
  from pg_db_role_setting s join pg_roles r on r.oid = s.setrole cross join unnest(s.setconfig) as setting
 where s.setdatabase = 0 and r.rolname = any (%(ours)s)
"""

_MEMBERSHIPS = """
select member.rolname || ' ' || granted.rolname
  from pg_roles member cross join pg_roles granted
 where member.rolname = any (%(ours)s) and (granted.rolname = any (%(ours)s) or granted.rolname = 'pg_read_all_stats')
   and pg_has_role(member.oid, granted.oid, 'usage')
"""

_SCHEMA_GRANTS = """
select coalesce(r.rolname, 'PUBLIC') || ' ' || lower(a.privilege_type)
  from pg_namespace n cross join aclexplode(coalesce(n.nspacl, acldefault('n', n.nspowner))) a
  left join pg_roles r on r.oid = a.grantee
 where n.nspname = 'public'
"""


@dataclass(frozen=True, slots=True)
class Role:
    """An existing role with one of Pulse's names. foreign_traits: signs that it belongs to another application."""

    name: str
    can_login: bool
    connection_limit: int
    comment: str
    foreign_traits: list[str]
    special_attributes: list[str]
    """Words of ALTER ROLE for what an administrator of the server may do and Pulse never needs."""


@dataclass(frozen=True, slots=True)
class ServerCatalog:
    """The roles of an installation on the server. Pairs are written `role right`."""

    login: str
    database: str
    has_public_schema: bool
    public_rights: frozenset[str]
    """Rights of PUBLIC on the database."""
    database_rights: frozenset[str]
    roles: Mapping[str, Role]
    memberships: frozenset[str]
    settings: frozenset[str]
    may_act_as_owner: bool
    schema_grants: frozenset[str]
    """Grants on schema public by name, `PUBLIC usage` among them."""
    owner_creates: bool


def read_catalog(session: Session, names: RoleNames) -> ServerCatalog:
    """Read the input of a plan of role changes."""
    ours = [names.owner, *names.callers]
    cursor = session.cursor(row_factory=tuple_row)
    row = cursor.execute(_DATABASE.encode(), {"owner": names.owner}).fetchone()
    assert row is not None
    login, database, oid, migrated, public_rights, database_rights, public_schema = row
    about = {"ours": ours, "database": oid, "migrated": migrated, "known": list(_KNOWN_SETTINGS)}
    found = session.cursor(row_factory=class_row(Role)).execute(_ROLES.encode(), about).fetchall()
    roles = {role.name: role for role in found}
    return ServerCatalog(
        login=login,
        database=database,
        has_public_schema=public_schema is not None,
        public_rights=frozenset(public_rights),
        database_rights=frozenset(database_rights),
        roles=roles,
        memberships=_column(session, _MEMBERSHIPS, {"ours": ours}),
        settings=_column(session, _SETTINGS, {"ours": ours}),
        may_act_as_owner=_may_act_as(session, names.owner, exists=names.owner in roles),
        schema_grants=_column(session, _SCHEMA_GRANTS, {}),
        owner_creates=names.owner in roles and _creates_in_public(session, names.owner),
    )


def _may_act_as(session: Session, owner: str, *, exists: bool) -> bool:
    if not exists:
        query, values = "select rolsuper from pg_roles where rolname = current_user", []
    else:
        # Since Postgres 16, the creator of a role may grant it but not act as it.
        query = "select pg_has_role(current_user, %s, %s)"
        values = [owner, "SET" if session.info.server_version >= 160000 else "MEMBER"]
    return session.cursor(row_factory=tuple_row).execute(query, values).fetchone() == (True,)


def _creates_in_public(session: Session, owner: str) -> bool:
    query = """
      select has_schema_privilege(%(owner)s, oid, 'usage') and has_schema_privilege(%(owner)s, oid, 'create')
        from pg_namespace where nspname = 'public'"""
    return session.cursor(row_factory=tuple_row).execute(query, {"owner": owner}).fetchone() == (True,)


def _column(session: Session, query: str, values: Mapping[str, object]) -> frozenset[str]:
    rows = session.cursor(row_factory=tuple_row).execute(query.encode(), values).fetchall()
    return frozenset(row[0] for row in rows)
