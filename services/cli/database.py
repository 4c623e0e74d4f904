"""Connections of the commands: the URL of the database for each role, and one pool per command."""

import asyncio
import getpass
import os
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, TypeVar
from urllib.parse import urlsplit

import asyncpg

from migrations.role_names import RoleNames, RolesRefused
from services.cli.errors import BadSettingError, CommandFailed
from services.cli.home import PROGRAM, Home
from services.cli.state_file import StackState, running_state
from services.shared import db, tracing
from services.shared.connecting.faults import UnsafeDatabase
from services.shared.connecting.target import check_url
from services.shared.settings import Settings
from services.shared.topic_settings import Port

Result = TypeVar("Result")


class StackSettings(Settings):
    """Settings of the connections of `pulse` itself."""

    service = "local_stack"
    port: Port = 8080

    @classmethod
    def session_attrs(cls, hosts: int) -> str:
        """Accept a standby if it is the only host of the URL, so that commands that read work there."""
        return "any" if hosts == 1 else "read-write"


def given_url(variable: str = "PULSE_DATABASE_URL") -> str | None:
    """Return the checked URL in a variable, None if it is unset. With PULSE_DATABASE_URL no embedded server is used.

    Raises BadSettingError if the URL is malformed.
    """
    url = os.environ.get(variable) or None
    if url is not None:
        try:
            check_url(url)
        except db.BadUrl as error:
            raise BadSettingError(f"{variable}: {error}") from None
    return url


def embedded_state(home: Home) -> StackState:
    """Return the state of the running stack, whose database is used if no variable names another.

    Raises NotRunningError.
    """
    return running_state(home, otherwise=" or set PULSE_DATABASE_URL")


def migration_url(home: Home) -> str:
    """Return the URL to migrate with: PULSE_MIGRATION_URL, PULSE_DATABASE_URL or the running embedded server.

    Raises NotRunningError.
    """
    url = os.environ.get("PULSE_MIGRATION_URL") or given_url() or embedded_state(home).migration_url
    if url is None:
        raise CommandFailed("the running stack uses PULSE_DATABASE_URL: set it for this command")
    return url


def role_url(role: str) -> str:
    """Return the URL for a service role such as ui: PULSE_UI_DATABASE_URL, else PULSE_DATABASE_URL or the stack's."""
    own = given_url(f"PULSE_{role.upper()}_DATABASE_URL")
    return own or given_url() or as_role(migration_url(Home.find()), f"pulse_{role}")


def role_names() -> RoleNames:
    """Return the names of this installation's roles. Raises CommandFailed if PULSE_ROLE_PREFIX is invalid."""
    try:
        return RoleNames.find()
    except RolesRefused as error:
        raise CommandFailed(str(error)) from error


def as_role(url: str, role: str) -> str:
    """Return the URL of the embedded server, which needs no password, with another role as the login.

    role: its default name, such as pulse_ui, which PULSE_ROLE_PREFIX may change.
    """
    return re.sub(r"^(postgres(?:ql)?://)[^@/]*@", rf"\g<1>{role_names().rename(role)}@", url)


def without_client_variables(env: Mapping[str, str]) -> dict[str, str]:
    """Return the environment without PG* variables, which libpq obeys. An empty PGTZ ends every connection."""
    return {name: value for name, value in env.items() if not name.startswith("PG")}


def may_migrate(url: str) -> bool:
    """Return whether the URL's login may migrate: it is no role that services run as."""
    return urlsplit(url).username not in role_names().callers


@asynccontextmanager
async def open_database(url: str) -> AsyncIterator[db.Pool]:
    """Open a pool of two connections. Raises CommandFailed if the database does not answer."""
    try:
        check_url(url)
    except db.BadUrl as error:
        raise BadSettingError(f"the database URL: {error}") from None
    try:
        pool = await db.open_pool(StackSettings(database_url=url, pool_min_size=0, pool_max_size=2))
        async with pool.acquire():
            pass
    except UnsafeDatabase as error:
        raise CommandFailed(str(error)) from error
    except db.UNAVAILABLE as error:
        raise CommandFailed(f"the database does not answer: {error or type(error).__name__}") from error
    try:
        yield pool
    finally:
        await db.close_pool(pool)


def operator() -> str:
    """Return the operating system's name of the user for the audit trail. The database adds the login role."""
    try:
        return f"cli:{getpass.getuser()}"
    except (KeyError, OSError):  # no entry for this user, as in a container
        return f"cli:uid {os.getuid()}"


async def call(pool: db.Pool, tenant_id: str, command: str, query: str, *arguments: object) -> Any:
    """Return the value of a call by which an operator's command changes a tenant, in a new trace."""
    actor = db.Actor(type="user", id=operator(), name=command)
    with tracing.use_trace_id(None):
        async with db.act(pool, tenant_id=tenant_id, actor=actor, service=StackSettings.service) as connection:
            return await connection.fetchval(query, *arguments)


async def rows_of(pool: db.Pool, tenant_id: str, query: str, *arguments: object) -> list[Any]:
    """Return the rows of a query on the views of schema api, which show this tenant only."""
    async with db.read_as(pool, tenant_id=tenant_id) as connection:
        return list(await connection.fetch(query, *arguments))


def in_database(work: Callable[[db.Pool], Awaitable[Result]], url: str | None = None, *, roles: str = "") -> Result:
    """Return the result of work on a database, by default with the rights of the API. Raises CommandFailed.

    roles: a hint about the roles that the work needs, which follows the message if privileges are missing.
    """

    async def run() -> Result:
        async with open_database(url or role_url("ui")) as pool:
            return await work(pool)

    try:
        return asyncio.run(run())
    except (asyncpg.InvalidSchemaNameError, asyncpg.UndefinedFunctionError, asyncpg.UndefinedTableError) as error:
        raise CommandFailed(f"the database is older than this checkout: run {PROGRAM} migrate") from error
    except asyncpg.PostgresError as error:
        hint = roles if isinstance(error, asyncpg.InsufficientPrivilegeError) else ""
        raise CommandFailed(f"the database refuses: {error}{hint}") from error
