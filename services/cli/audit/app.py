"""`pulse audit`: its group of commands, and the database as the auditor sees it."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from typing import TypeVar

import asyncpg
import typer

from services.cli import database
from services.cli.errors import LocalError
from services.cli.home import Home
from services.shared import db

app = typer.Typer(help="Read the audit trail, prove it, keep it.", no_args_is_help=True)
_Result = TypeVar("_Result")


def auditor_url(home: Home) -> str:
    """URL of the database as pulse_auditor: PULSE_AUDIT_DATABASE_URL, or that of the running embedded server."""
    given = database.given_url("PULSE_AUDIT_DATABASE_URL")
    if given:
        return given
    if database.given_url() is not None:
        raise LocalError("set PULSE_AUDIT_DATABASE_URL to the database as pulse_auditor")
    return database.as_role(database.migration_url(home), "pulse_auditor")


def sealing_url(home: Home) -> str:
    """Return the URL of the database as pulse_ops, the only role that adds to the sealed log."""
    given = os.environ.get("PULSE_OPS_DATABASE_URL") or database.given_url()
    return given or database.as_role(database.migration_url(home), "pulse_ops")


def as_auditor(work: Callable[[db.Pool], Awaitable[_Result]]) -> _Result:
    """Return the result of work on the database; LocalError in one line when the database refuses."""
    return _run(auditor_url(Home.find()), work)


def as_sealer(work: Callable[[db.Pool], Awaitable[_Result]]) -> _Result:
    """The same as pulse_ops."""
    return _run(sealing_url(Home.find()), work)


def _run(url: str, work: Callable[[db.Pool], Awaitable[_Result]]) -> _Result:
    async def run() -> _Result:
        async with database.open_database(url) as pool:
            return await work(pool)

    try:
        return asyncio.run(run())
    except (asyncpg.InvalidSchemaNameError, asyncpg.UndefinedFunctionError, asyncpg.UndefinedTableError) as error:
        raise LocalError("the database is older than this checkout: ./pulse migrate brings it up") from error
    except asyncpg.InsufficientPrivilegeError as error:
        raise LocalError(
            f"the database refuses: {error}; sealing needs pulse_ops (PULSE_OPS_DATABASE_URL), reading pulse_auditor "
            "(PULSE_AUDIT_DATABASE_URL)"
        ) from error
    except asyncpg.PostgresError as error:
        raise LocalError(f"the database refuses: {error}") from error
