"""The database of the local stack: whose it is, and how to reach it as which role."""

import asyncio
import os
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, TypeVar
from urllib.parse import urlsplit

import asyncpg

from migrations.role_names import RoleNames, RolesRefused
from services.cli.errors import BadSettingError, LocalError
from services.cli.home import Home
from services.cli.state_file import running_state
from services.shared import db, tracing
from services.shared.connecting.faults import UnsafeDatabase
from services.shared.connecting.target import check_url
from services.shared.settings import Settings
from services.shared.topic_settings import Port

Result = TypeVar("Result")


class StackSettings(Settings):
    """The connections of `pulse` itself, not of a service."""

    service = "local_stack"
    port: Port = 8080

    @classmethod
    def session_attrs(cls, hosts: int) -> str:
        """A command that only reads works on a standby, when that is the one host of its URL."""
        return "any" if hosts == 1 else "read-write"


def given_url(variable: str = "PULSE_DATABASE_URL") -> str | None:
    """Return the URL in a variable, checked; with PULSE_DATABASE_URL there is no server of ours.

    Raises BadSettingError when no connection can be made with it.
    """
    url = os.environ.get(variable) or None
    if url is not None:
        try:
            check_url(url)
        except db.BadUrl as error:
            raise BadSettingError(f"{variable}: {error}") from None
    return url


def migration_url(home: Home) -> str:
    """URL to migrate with: the user's, or the running embedded server's. Raises NotRunningError."""
    url = os.environ.get("PULSE_MIGRATION_URL") or given_url() or running_state(home).migration_url
    if url is None:
        raise LocalError("the running stack has a database of its own: set PULSE_DATABASE_URL")
    return url


def ui_url(home: Home) -> str:
    """URL of the API, for commands that read and change what it does."""
    return given_url("PULSE_UI_DATABASE_URL") or given_url() or as_role(migration_url(home), "pulse_ui")


def delivery_url(home: Home) -> str:
    """URL of the delivery worker, the one service that reads the secrets of channels."""
    return given_url("PULSE_DELIVERY_DATABASE_URL") or given_url() or as_role(migration_url(home), "pulse_delivery")


def role_names() -> RoleNames:
    """Return the names of this installation's roles. Raises LocalError for a PULSE_ROLE_PREFIX that is none."""
    try:
        return RoleNames.find()
    except RolesRefused as error:
        raise LocalError(str(error)) from error


def as_role(url: str, role: str) -> str:
    """The same server and database of an embedded server as another role; it asks for no password.

    `role` is a default name such as pulse_ui; the login is that of this installation's PULSE_ROLE_PREFIX.
    """
    return re.sub(r"^(postgres(?:ql)?://)[^@/]*@", rf"\g<1>{role_names().rename(role)}@", url)


def without_client_variables(env: Mapping[str, str]) -> dict[str, str]:
    """The environment without what libpq obeys, such as an empty PGTZ that ends every connection."""
    return {name: value for name, value in env.items() if not name.startswith("PG")}


def may_migrate(url: str) -> bool:
    """Whether the URL's login is one that people migrate with, not the one that services run as."""
    return urlsplit(url).username not in role_names().callers


@asynccontextmanager
async def open_database(url: str) -> AsyncIterator[db.Pool]:
    """A small pool; LocalError in one line when the database does not answer."""
    try:
        check_url(url)
    except db.BadUrl as error:
        raise BadSettingError(f"the URL of the database: {error}") from None
    try:
        pool = await db.open_pool(StackSettings(database_url=url, pool_min_size=0, pool_max_size=2))
        async with pool.acquire():
            pass
    except UnsafeDatabase as error:
        raise LocalError(str(error)) from error
    except db.UNAVAILABLE as error:
        raise LocalError(f"the database does not answer: {error or type(error).__name__}") from error
    try:
        yield pool
    finally:
        await db.close_pool(pool)


async def call(pool: db.Pool, tenant_id: str, actor: db.Actor, query: str, *arguments: object) -> Any:
    """Return the value of a call that changes something of a tenant, in a trace of its own."""
    with tracing.use_trace_id(None):
        async with db.act(pool, tenant_id=tenant_id, actor=actor, service=StackSettings.service) as connection:
            return await connection.fetchval(query, *arguments)


def in_database(work: Callable[[db.Pool], Awaitable[Result]]) -> Result:
    """Return the result of work on the services' database. Raises LocalError in one line."""

    async def run() -> Result:
        async with open_database(ui_url(Home.find())) as pool:
            return await work(pool)

    try:
        return asyncio.run(run())
    except (asyncpg.InvalidSchemaNameError, asyncpg.UndefinedFunctionError, asyncpg.UndefinedTableError) as error:
        raise LocalError("the database is older than this checkout: ./pulse migrate brings it up") from error
    except asyncpg.PostgresError as error:
        raise LocalError(f"the database refuses: {error}") from error
