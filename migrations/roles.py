"""The roles of an installation: `python -m migrations.roles` makes them, `--print` shows the SQL."""

import argparse
import os
import sys
from collections.abc import Callable, Mapping

import psycopg
from psycopg import sql
from psycopg.rows import tuple_row

from migrations.catalog_rights import missing_rights
from migrations.database_url import NoDatabase, checked_url, database_url
from migrations.layer_catalog import Session, one_line
from migrations.role_catalog import read_catalog
from migrations.role_names import VARIABLE, RoleNames, RolesRefused
from migrations.role_plan import Wishes, optional, removals, required
from migrations.server import UnsuitableServer, connect

# Processes that make roles of one server at once conflict in its shared catalog, which no lock of Pulse covers. The
# loser of each race tries again, and each attempt gets at least one statement further.
ATTEMPTS = 20
_CONNECTION_LIMIT = "PULSE_EXPORTER_CONNECTION_LIMIT"


class RolesMissing(RolesRefused):
    """Raised if the login may not make the needed roles, grants or memberships; the message holds the SQL."""


class OtherOwner(RolesRefused):
    """Raised if the database holds Pulse under other role names."""


class ServiceLogin(RolesRefused):
    """Raised if the login is a role that migrations make, which must not get the owner's rights."""


class BadRoleSetting(RolesRefused):
    """Raised if a variable about roles has a value that no server takes."""


def ensure_roles(session: Session, *, layer: str = "", set_passwords: bool = False) -> list[str]:
    """Make the missing roles, grants and memberships; return a line for each task left to an administrator.

    The session must be in autocommit mode; any number may run at once. `layer` is the text of sql/, whose functions of
    pg_catalog must be executable. Raises RolesMissing, with the SQL for an administrator, if the login may not make
    them, and ForeignRole if a role of the same name belongs to another application.
    """
    names = RoleNames.find()
    wishes = _wishes(session, names, set_passwords=set_passwords)
    before = frozenset(read_catalog(session, names).roles)
    notices: list[str] = []
    for attempt in range(1, ATTEMPTS + 1):
        try:
            _run_required(session, wishes, layer)
            notices = _run_optional(session, names)
            break
        except (psycopg.errors.UniqueViolation, psycopg.errors.DuplicateObject, psycopg.errors.InternalError_):
            if attempt == ATTEMPTS:
                raise
    kept = [] if set_passwords else [name for name in wishes.passwords if name in before]
    if kept:
        notices.append(f"roles that exist keep their passwords ({', '.join(kept)}); --set-passwords changes them")
    return notices


def refuse_other_owner(session: Session, names: RoleNames) -> None:
    """Raise OtherOwner if the tables of Pulse in this database belong to the owner of another prefix."""
    query = """
      select r.rolname from pg_class c
        join pg_namespace n on n.oid = c.relnamespace join pg_roles r on r.oid = c.relowner
       where (n.nspname, c.relname) = ('public', 'sql_layer')"""
    row = session.cursor(row_factory=tuple_row).execute(query).fetchone()
    if row is not None and row[0] != names.owner and row[0].endswith("owner"):
        raise OtherOwner(
            f"the tables of this database belong to {row[0]}, not to {names.owner}: set {VARIABLE} to the prefix that"
            " the database was migrated with"
        )


def refuse_service_login(session: Session, names: RoleNames) -> None:
    """Raise ServiceLogin if the session's login is a role that migrations make."""
    if session.info.user in names.callers:
        raise ServiceLogin(
            f"{session.info.user} may not migrate: set PULSE_MIGRATION_URL to a login that may create roles and owns"
            " the database"
        )


def plan(session: Session, *, layer: str = "", wishes: Wishes | None = None) -> list[sql.Composed]:
    """Return the missing statements, in groups for one transaction each."""
    names = RoleNames.find()
    server = read_catalog(session, names)
    found = list(required(server, names, wishes or Wishes()))
    # Rights on the catalog are looked up by role, so the roles must exist.
    complete = set(server.roles) == {names.owner, *names.callers}
    return [*found, *(missing_rights(session, names, layer) if complete and layer else [])]


def _run_required(session: Session, wishes: Wishes, layer: str) -> None:
    try:
        for _ in range(2):  # rights on the catalog are known once the roles exist
            missing = plan(session, layer=layer, wishes=wishes)
            if not missing:
                return
            for statements in missing:
                with session.transaction():
                    session.execute(statements)
            wishes = Wishes(passwords=wishes.passwords, exporter_connections=wishes.exporter_connections)
    except psycopg.errors.InsufficientPrivilege as error:
        raise RolesMissing(_ask(session, one_line(error), layer)) from error
    # For a grant without grant option the server sends a warning, not an error.
    if plan(session, layer=layer):
        raise RolesMissing(_ask(session, f"role {session.info.user} may not grant what Pulse needs", layer))


def _ask(session: Session, reason: str, layer: str) -> str:
    rest = "".join(statements.as_string(session) for statements in plan(session, layer=layer))
    return f"{reason}. Ask an administrator of the server to run:\n{rest}"


def _run_optional(session: Session, names: RoleNames) -> list[str]:
    left = []
    for statement, refusal in optional(read_catalog(session, names), names):
        try:
            with session.transaction():
                session.execute(statement)
        except psycopg.errors.InsufficientPrivilege:
            if refusal is not None:
                left.append((statement, refusal))
    left.extend(removals(read_catalog(session, names), names))
    return [f"{why}; an administrator may run: {' '.join(how.as_string(session).split())}" for how, why in left]


def _wishes(session: Session, names: RoleNames, *, set_passwords: bool) -> Wishes:
    """Read PULSE_APP_PASSWORD and similar variables, hashed here to keep passwords out of the server's log."""

    def verifier(role: str, password: str) -> str:
        return session.pgconn.encrypt_password(password.encode(), role.encode(), b"scram-sha-256").decode()

    given = _given_passwords(os.environ, names)
    return Wishes(
        passwords={role: verifier(role, password) for role, password in given.items()},
        set_passwords=set_passwords,
        exporter_connections=_connection_limit(os.environ.get(_CONNECTION_LIMIT)),
    )


def _given_passwords(environment: Mapping[str, str], names: RoleNames) -> dict[str, str]:
    variables = {role: f"PULSE_{role.removeprefix(names.prefix).upper()}_PASSWORD" for role in names.callers}
    return {role: environment[variable] for role, variable in variables.items() if environment.get(variable)}


def _connection_limit(given: str | None) -> int | None:
    if not given:
        return None
    if not (given.isascii() and given.isdigit() and 1 <= int(given) <= 10_000):
        raise BadRoleSetting(f"{_CONNECTION_LIMIT} takes a number of connections from 1 to 10000, not {given[:40]!r}")
    return int(given)


def main(say: Callable[[str], None] = print) -> int:
    """Make the roles, or print the missing statements."""
    parser = argparse.ArgumentParser(prog="python -m migrations.roles", description=__doc__)
    parser.add_argument("--print", action="store_true", help="print the missing statements instead of running them")
    parser.add_argument("--set-passwords", action="store_true", help="change the passwords of roles that exist")
    parser.add_argument("--url", help="which database (default: PULSE_MIGRATION_URL, PULSE_DATABASE_URL, embedded)")
    arguments = parser.parse_args()
    try:
        url = checked_url(arguments.url, "--url") if arguments.url else database_url()
        with connect(url, autocommit=True) as session:
            refuse_service_login(session, RoleNames.find())
            refuse_other_owner(session, RoleNames.find())
            if arguments.print:
                names = RoleNames.find()
                server = read_catalog(session, names)
                more = [how for how, _ in (*optional(server, names), *removals(server, names))]
                text = "".join(statements.as_string(session) for statements in [*plan(session), *more])
                if text:
                    say(text.rstrip("\n"))
            else:
                for line in ensure_roles(session, set_passwords=arguments.set_passwords):
                    say(line)
    except NoDatabase as error:
        print(f"roles: {error}", file=sys.stderr)
        return 2
    except (psycopg.Error, UnsuitableServer, RolesRefused) as error:
        print(f"roles: {one_line(error) if isinstance(error, psycopg.Error) else error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
