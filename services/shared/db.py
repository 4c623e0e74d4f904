"""The only door to Postgres: pools, transactions with an actor, the revision check."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import asyncpg
import orjson

from services.shared import tracing
from services.shared.settings import Settings

Pool: TypeAlias = asyncpg.Pool
Connection: TypeAlias = asyncpg.Connection

# What a lost, refused or restarting server raises; anything else is a fault of ours.
UNAVAILABLE = (
    OSError,
    TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.TooManyConnectionsError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # what asyncpg says when the server's farewell reached it between two statements
)

# Longest wait for a free connection. asyncpg bounds the release by it too, which otherwise waits for a hung server
# without end.
ACQUIRE_SECONDS = 10.0

CLOSE_SECONDS = 3.0

_REVISIONS = Path(__file__).parents[2] / "migrations" / "versions"


class SchemaMismatch(Exception):
    """The database does not have the revision this program was written for."""


class UnsafeDatabase(Exception):
    """The database says that a row is stored before it is."""


@dataclass(frozen=True, slots=True)
class Actor:
    """Who causes a change. type: user, device, service or anonymous."""

    type: str
    id: str
    name: str | None = None


async def _prepare(connection: Connection) -> None:
    await connection.set_type_codec(
        "jsonb",
        schema="pg_catalog",
        # The binary form of jsonb is the text after one version byte.
        encoder=lambda value: b"\x01" + orjson.dumps(value, default=str),
        decoder=lambda data: orjson.loads(data[1:]),
        format="binary",
    )


async def _keep(connection: Connection) -> None:
    """Nothing of ours outlives a transaction, so a returned connection needs no round trip to reset it."""


async def open_pool(settings: Settings) -> Pool:
    """A pool on PULSE_DATABASE_URL whose jsonb values are Python values."""
    return await asyncpg.create_pool(
        settings.database_url,
        min_size=min(settings.pool_min_size, settings.pool_max_size),
        max_size=settings.pool_max_size,
        command_timeout=settings.command_timeout_seconds,
        timeout=10,
        init=_prepare,
        server_settings={"application_name": f"pulse-{settings.service}"},
        statement_cache_size=settings.statement_cache_size,
        reset=_keep,
    )


async def close_pool(pool: Pool) -> None:
    """Close the pool, by force when that takes longer than it may.

    A connection that was cut off while it was taken or given back may never count as back, and asyncpg waits for it.
    """
    try:
        async with asyncio.timeout(CLOSE_SECONDS):
            await pool.close()
    except (TimeoutError, *UNAVAILABLE):
        pool.terminate()


@asynccontextmanager
async def act(
    pool: Pool, *, tenant_id: str, actor: Actor, service: str, reason: str = "", ip_address: str | None = None
) -> AsyncIterator[Connection]:
    """One transaction on behalf of an actor; functions read tenant, actor, reason, address and trace from settings."""
    context = tracing.current()
    async with pool.acquire(timeout=ACQUIRE_SECONDS) as connection, connection.transaction():
        await connection.execute(
            "select core.act($1, $2, $3, $4, $5, $6, $7, $8, $9)",
            tenant_id,
            actor.type,
            actor.id,
            actor.name or "",
            reason,
            context.trace_id if context else "",
            service,
            ip_address or "",
            context.span_id if context else "",
        )
        yield connection


@asynccontextmanager
async def read_as(pool: Pool, *, tenant_id: str) -> AsyncIterator[Connection]:
    """One read-only transaction in which the api views show the tenant's rows and no others."""
    async with pool.acquire(timeout=ACQUIRE_SECONDS) as connection, connection.transaction(readonly=True):
        await connection.execute(
            "select set_config('pulse.tenant_id', $1, true), core.name_request($2)",
            tenant_id,
            tracing.current_trace_id() or "",
        )
        yield connection


def expected_revision() -> str:
    """The newest revision this checkout has."""
    return max(match[1] for path in _REVISIONS.glob("*.py") if (match := re.match(r"(\d{4})_", path.name)))


async def check_revision(connection: Connection, *, seconds: float = 10.0) -> None:
    """Raise SchemaMismatch when the database is older than this program, or was never migrated."""
    expected = expected_revision()
    try:
        found = await connection.fetchval("select core.revision()", timeout=seconds)
    except (asyncpg.UndefinedFunctionError, asyncpg.InvalidSchemaNameError):
        found = None
    if found is None or found < expected:
        raise SchemaMismatch(
            f"the database is at revision {found or 'none'}, this program needs {expected}: run alembic upgrade head"
        )


async def check_durability(connection: Connection, *, seconds: float = 10.0) -> None:
    """Raise UnsafeDatabase when what this session commits may be lost in a crash of the server.

    Asked once, at start. No session of ours sets synchronous_commit for itself: as a startup parameter poolers refuse
    it, and as a statement it would cost each batch of audit events two more round trips.
    """
    fault = await connection.fetchval("select core.durability_fault()", timeout=seconds)
    if fault is not None:
        raise UnsafeDatabase(f"the database would lose committed rows in a crash: {fault}")
