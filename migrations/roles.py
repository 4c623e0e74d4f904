"""The five roles of Pulse, made once a server: `python -m migrations.roles` makes them, `--print` shows the SQL."""

import argparse
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import psycopg
from psycopg import sql
from psycopg.rows import tuple_row

from migrations.database_url import NoDatabase, database_url
from migrations.layer_catalog import CALLERS, OWNER, Session, one_line

# Two processes that make roles of one server meet in its shared catalog, where no lock of ours reaches: the loser of
# each race looks again. Each attempt gets at least one statement further.
ATTEMPTS = 10

_ROLES = {
    "pulse_owner": """
create role pulse_owner nologin;
comment on role pulse_owner is 'Owns every object of Pulse; migrations act as this role.';
""",
    "pulse_app": """
create role pulse_app login;
comment on role pulse_app is 'The services of Pulse: functions and api views, no table.';
-- Calls of a few milliseconds: compiling one costs a hundred times what it saves.
alter role pulse_app set jit = off;
""",
    "pulse_ops": """
create role pulse_ops login;
comment on role pulse_ops is 'The ops worker: may what pulse_app may, seal the audit trail and let its months go.';
alter role pulse_ops set jit = off;
""",
    "pulse_auditor": """
create role pulse_auditor login;
comment on role pulse_auditor is 'People who audit: they read the audit trail and place legal holds.';
""",
    # A scrape reads a few views every few seconds: two connections let one overlap the next, and no query of it may
    # hold a lock or run for longer than Prometheus waits (its default scrape_timeout is 10 s).
    "pulse_exporter": """
create role pulse_exporter login connection limit 2;
comment on role pulse_exporter is 'The exporter: views of schema metrics, read-only.';
alter role pulse_exporter set default_transaction_read_only = on;
alter role pulse_exporter set statement_timeout = '10s';
alter role pulse_exporter set lock_timeout = '1s';
alter role pulse_exporter set idle_in_transaction_session_timeout = '10s';
alter role pulse_exporter set search_path = pg_catalog;
""",
}

_DATABASE_RIGHTS = """
select coalesce(r.rolname, ''), a.privilege_type
  from pg_database d
  cross join aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) a
  left join pg_roles r on r.oid = a.grantee
 where d.datname = current_database()
"""


class RolesMissing(Exception):
    """The login may not make the roles, grants or memberships that Pulse needs; the message holds the SQL."""


@dataclass(frozen=True, slots=True)
class _Server:
    """What is there already."""

    login: str
    database: str
    roles: frozenset[str]
    granted: frozenset[tuple[str, str]]
    public: frozenset[str]
    creates_in_public: bool
    may_act_as_owner: bool
    ops_is_app: bool


def ensure_roles(session: Session) -> None:
    """Make what is missing of roles, grants on the database and memberships; session must be in autocommit mode.

    Any number may run at once. Raises RolesMissing, with the SQL for an administrator, when the login may not.
    """
    for attempt in range(1, ATTEMPTS + 1):
        try:
            for statements in [*plan(session), *_passwords(session)]:
                with session.transaction():
                    session.execute(statements)
            return
        except psycopg.errors.InsufficientPrivilege as error:
            rest = "".join(statements.as_string(session) for statements in plan(session))
            raise RolesMissing(f"{one_line(error)}. Ask an administrator of the server to run:\n{rest}") from error
        except (psycopg.errors.UniqueViolation, psycopg.errors.DuplicateObject, psycopg.errors.InternalError_):
            if attempt == ATTEMPTS:
                raise


def plan(session: Session) -> Iterator[sql.Composed]:
    """The statements that are missing, in groups that belong into one transaction."""
    server = _look(session)
    for role, statements in _ROLES.items():
        if role not in server.roles:
            yield sql.Composed([sql.SQL(statements)])
    if not server.ops_is_app:
        yield sql.SQL("grant pulse_app to pulse_ops;\n").format()
    yield from _database_grants(server)
    if not server.creates_in_public:
        yield sql.SQL("grant usage, create on schema public to {};\n").format(sql.Identifier(OWNER))
    if not server.may_act_as_owner:
        yield sql.SQL("grant {} to {};\n").format(sql.Identifier(OWNER), sql.Identifier(server.login))


def _database_grants(server: _Server) -> Iterator[sql.Composed]:
    """Nobody but these roles, and whoever migrates, enters the database."""
    database = sql.Identifier(server.database)
    wanted = [(OWNER, "CONNECT"), (OWNER, "CREATE"), *((role, "CONNECT") for role in (*CALLERS, server.login))]
    for role, privilege in wanted:
        if (role, privilege) not in server.granted:
            yield sql.SQL("grant {} on database {} to {};\n").format(
                sql.SQL(privilege.lower()), database, sql.Identifier(role)
            )
    if server.public:
        yield sql.SQL("revoke all on database {} from public;\n").format(database)


def _look(session: Session) -> _Server:
    cursor = session.cursor(row_factory=tuple_row)
    roles = frozenset(name for (name,) in cursor.execute("select rolname from pg_roles").fetchall())
    acl = cursor.execute(_DATABASE_RIGHTS).fetchall()
    row = cursor.execute("select current_user, current_database()").fetchone()
    assert row is not None
    login, database = row
    if OWNER in roles:
        may = "select pg_has_role(current_user, %s, %s), has_schema_privilege(%s, 'public', 'create')"
        # Since 16 whoever makes a role is a member that may hand it on but not act as it.
        membership = "SET" if session.info.server_version >= 160000 else "MEMBER"
        row = cursor.execute(may, [OWNER, membership, OWNER]).fetchone()
    else:
        row = cursor.execute("select rolsuper, false from pg_roles where rolname = current_user").fetchone()
    assert row is not None
    ops_is_app = False
    if {"pulse_app", "pulse_ops"} <= roles:
        ops_is_app = cursor.execute("select pg_has_role('pulse_ops', 'pulse_app', 'usage')").fetchone() == (True,)
    return _Server(
        login=login,
        database=database,
        roles=roles,
        granted=frozenset((role, privilege) for role, privilege in acl if role),
        public=frozenset(privilege for role, privilege in acl if not role),
        creates_in_public=row[1],
        may_act_as_owner=row[0],
        ops_is_app=ops_is_app,
    )


def _passwords(session: Session) -> Iterator[sql.Composed]:
    """PULSE_APP_PASSWORD and its like, hashed here so that the server's log never shows them."""
    for role in CALLERS:
        password = os.environ.get(f"{role.upper()}_PASSWORD")
        if password:
            hashed = session.pgconn.encrypt_password(password.encode(), role.encode(), b"scram-sha-256").decode()
            yield sql.SQL("alter role {} password {};\n").format(sql.Identifier(role), sql.Literal(hashed))


def main() -> int:
    """Make the roles, or print what is missing."""
    parser = argparse.ArgumentParser(prog="python -m migrations.roles", description=__doc__)
    parser.add_argument("--print", action="store_true", help="print the missing statements instead of running them")
    parser.add_argument("--url", help="which database (default: PULSE_MIGRATION_URL, PULSE_DATABASE_URL, embedded)")
    arguments = parser.parse_args()
    try:
        with psycopg.connect(arguments.url or database_url(), autocommit=True) as session:
            if arguments.print:
                print("".join(statements.as_string(session) for statements in plan(session)), end="")
            else:
                ensure_roles(session)
    except (psycopg.Error, NoDatabase, RolesMissing) as error:
        print(f"roles: {one_line(error) if isinstance(error, psycopg.Error) else error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
