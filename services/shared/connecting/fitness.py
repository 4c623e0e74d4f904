"""Checks that a database fits this program: its revision and its durability."""

import re
from pathlib import Path

import asyncpg

from services.shared.connecting.faults import UnsafeDatabase

_REVISIONS = Path(__file__).parents[3] / "migrations" / "versions"


class SchemaMismatch(Exception):
    """The database has an older revision than this program needs, or none."""


def expected_revision() -> str:
    """Return the newest revision of this checkout."""
    return max(match[1] for path in _REVISIONS.glob("*.py") if (match := re.match(r"(\d{4})_", path.name)))


async def check_revision(connection: asyncpg.Connection, *, seconds: float = 10.0) -> None:
    """Raise SchemaMismatch if the database is older than this program or was never migrated."""
    expected = expected_revision()
    try:
        found = await connection.fetchval("select core.revision()", timeout=seconds)
    except (asyncpg.UndefinedFunctionError, asyncpg.InvalidSchemaNameError):
        found = None
    if found is None or found < expected:
        raise SchemaMismatch(
            f"the database is at revision {found or 'none'}, this program needs {expected}: run alembic upgrade head"
        )


async def check_durability(connection: asyncpg.Connection, *, seconds: float = 10.0) -> None:
    """Raise UnsafeDatabase if a crash of the server may lose commits of this session.

    Checked once, at start. Sessions do not set synchronous_commit themselves: poolers refuse it as a startup parameter,
    and as a statement it would cost each batch of audit events two more round trips.
    """
    fault = await connection.fetchval("select core.durability_fault()", timeout=seconds)
    if fault is not None:
        raise UnsafeDatabase(f"the database would lose committed rows in a crash: {fault}")
