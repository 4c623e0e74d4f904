"""Pools of database connections, and transactions on behalf of an actor or tenant."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

import asyncpg
import orjson

from services.shared import tracing
from services.shared.connecting.connector import Connector
from services.shared.connecting.faults import (
    UNAVAILABLE,
    WrongServer,
    ends_by_itself,
    is_rebuilt,
    is_stale,
    outage,
)
from services.shared.connecting.session import read_state, reported_state
from services.shared.connecting.url import BadUrl
from services.shared.settings import Settings

__all__ = [
    "ACQUIRE_SECONDS",
    "UNAVAILABLE",
    "Actor",
    "BadUrl",
    "Connection",
    "Pool",
    "WrongServer",
    "act",
    "close_pool",
    "connector_for",
    "ends_by_itself",
    "is_rebuilt",
    "open_pool",
    "outage",
    "read_as",
    "replace_stale",
    "retried",
    "write_fault",
]

Pool: TypeAlias = asyncpg.Pool
Connection: TypeAlias = asyncpg.Connection
T = TypeVar("T")

# Longest wait for a free connection. asyncpg limits the release by it as well, which would otherwise wait for a hung
# server forever.
ACQUIRE_SECONDS = 10.0

CLOSE_SECONDS = 3.0


@dataclass(frozen=True, slots=True)
class Actor:
    """The cause of a change. type: user, device, service or anonymous."""

    type: str
    id: str
    name: str | None = None


def _shorten(record: logging.LogRecord) -> bool:
    """Reduce asyncpg's record about a lost connection to one line: an outage needs no traceback."""
    error = record.exc_info[1] if record.exc_info else None
    detail = None if error is None else outage(error)
    if detail is not None:
        record.msg = f"{record.msg}: {type(error).__name__}: {error}"
        record.exc_info = None
    return True


logging.getLogger("asyncpg.pool").addFilter(_shorten)


async def _prepare(connection: Connection) -> None:
    await connection.set_type_codec(
        "jsonb",
        schema="pg_catalog",
        # The binary form of jsonb is the text after one version byte.
        encoder=lambda value: b"\x01" + orjson.dumps(value, default=str),
        decoder=lambda data: orjson.loads(data[1:]),
        format="binary",
    )


def connector_for(settings: Settings, url: str, *, suffix: str = "", **options: Any) -> Connector:
    """Return the connector of a process for a URL. options: of asyncpg.connect."""
    return Connector(
        url,
        application_name=f"pulse-{settings.service}{suffix}",
        default_attrs=settings.session_attrs,
        # PULSE_LISTEN_URL bypasses the pooler.
        pooled=settings.statement_cache_size == 0 and url == settings.database_url,
        **options,
    )


async def open_pool(settings: Settings) -> Pool:
    """Open a pool on PULSE_DATABASE_URL whose jsonb values are Python values."""
    connector = connector_for(
        settings,
        settings.database_url,
        command_timeout=settings.command_timeout_seconds,
        statement_cache_size=settings.statement_cache_size,
    )
    # With one host or several, a writer must not keep a server that has become a standby or read-only.
    writes = settings.session_attrs(1) == "read-write"

    async def keep(connection: Connection) -> None:
        """Replace the reset of a returned connection, because nothing of ours outlives a transaction."""
        if writes and reported_state(connection).write_fault() is not None:
            await pool.expire_connections()

    pool = asyncpg.create_pool(
        connect=connector.connect,
        min_size=min(settings.pool_min_size, settings.pool_max_size),
        max_size=settings.pool_max_size,
        init=_prepare,
        reset=keep,
    )
    return await pool


async def replace_stale(pool: Pool | None, error: BaseException) -> None:
    """Expire the pool's connections if the error shows that they lead to a wrong or silent server."""
    if pool is not None and is_stale(error):
        await pool.expire_connections()


async def retried(pool: Pool, work: Callable[[], Awaitable[T]]) -> T:
    """Return the result of work, and repeat it once after a migration or a deadlock.

    The failed statement was rolled back with its transaction, so work must do nothing else before it.
    """
    try:
        return await work()
    except asyncpg.PostgresError as error:
        if is_rebuilt(error):
            # The types and statements that asyncpg has cached belong to the replaced layer.
            await pool.expire_connections()
        elif not isinstance(error, asyncpg.TransactionRollbackError):
            raise
    return await work()


async def close_pool(pool: Pool) -> None:
    """Close the pool, by force after CLOSE_SECONDS.

    A connection that was lost while it was acquired or released may never be returned, and asyncpg waits for it.
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
    """Open a transaction on behalf of an actor, with tenant, actor, reason, address and trace in its settings."""
    context = tracing.current()
    async with pool.acquire(timeout=ACQUIRE_SECONDS) as connection, connection.transaction():
        await connection.execute(
            "select core.act(p_tenant_id => $1, p_actor_type => $2, p_actor_id => $3, p_actor_name => $4,"
            " p_reason => $5, p_trace_id => $6, p_service => $7, p_ip_address => $8, p_span_id => $9)",
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
    """Open a read-only transaction in which the api views show only the rows of the tenant."""
    async with pool.acquire(timeout=ACQUIRE_SECONDS) as connection, connection.transaction(readonly=True):
        await connection.execute(
            "select set_config('pulse.tenant_id', $1, true), core.name_request($2)",
            tenant_id,
            tracing.current_trace_id() or "",
        )
        yield connection


async def write_fault(pool: Pool, connection: Connection, *, seconds: float) -> str | None:
    """Return why the connection cannot write, or None. If it cannot, expire the connections of its pool."""
    fault = (await read_state(connection, seconds=seconds)).write_fault()
    if fault is not None:
        await pool.expire_connections()
    return fault
