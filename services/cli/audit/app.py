"""`pulse audit`: the group of its commands, and the database with the rights they need."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

from services.cli import database
from services.cli.app import new_app
from services.cli.errors import CommandFailed
from services.cli.home import Home
from services.shared import db

app = new_app("Read, verify and export the audit trail.")
_ROLES = "; sealing needs pulse_ops (PULSE_OPS_DATABASE_URL), reading pulse_auditor (PULSE_AUDIT_DATABASE_URL)"
_Result = TypeVar("_Result")


def auditor_url(home: Home) -> str:
    """Return the URL as pulse_auditor: PULSE_AUDIT_DATABASE_URL, or the running embedded server."""
    given = database.given_url("PULSE_AUDIT_DATABASE_URL")
    if given:
        return given
    if database.given_url() is not None:
        raise CommandFailed("set PULSE_AUDIT_DATABASE_URL to the database as pulse_auditor")
    return database.as_role(database.migration_url(home), "pulse_auditor")


def as_auditor(work: Callable[[db.Pool], Awaitable[_Result]]) -> _Result:
    """Return the result of work on the database as pulse_auditor. Raises CommandFailed."""
    return database.in_database(work, auditor_url(Home.find()), roles=_ROLES)


def as_sealer(work: Callable[[db.Pool], Awaitable[_Result]]) -> _Result:
    """Return the result of work on the database as pulse_ops. Raises CommandFailed."""
    return database.in_database(work, database.role_url("ops"), roles=_ROLES)
