"""Settings that Pulse relies on in every session, and checks of the server behind it."""

from dataclasses import dataclass
from typing import Final

import asyncpg

from services.shared.connecting.faults import UnsafeDatabase, WrongServer

# A pooler in transaction mode supports these two startup parameters and keeps them for its client.
STARTUP: Final = {"TimeZone": "UTC", "DateStyle": "ISO"}

_SETTINGS: Final = {
    "default_transaction_isolation": "read committed",
    "default_transaction_deferrable": "off",
    "search_path": "pg_catalog, public, pg_temp",
    "quote_all_identifiers": "off",
    "IntervalStyle": "postgres",
    "bytea_output": "hex",
    "extra_float_digits": "1",
    "standard_conforming_strings": "on",
    "transform_null_equals": "off",
    "row_security": "on",
    "TimeZone": "UTC",
    "DateStyle": "ISO",
    "idle_session_timeout": "0",
    # A crashed machine must not hold locks and connections until the server's own keepalive detects it, by default
    # after two hours.
    "tcp_keepalives_idle": "30",
    "tcp_keepalives_interval": "10",
    "tcp_keepalives_count": "3",
    # Parameters may be secrets of channels, so the server must not log them.
    "log_parameter_max_length_on_error": "0",
}

# Only superusers and roles with a grant can set log_parameter_max_length.
_PREPARE: Final = """
select pg_catalog.pg_is_in_recovery() as standby,
       pg_catalog.current_setting('transaction_read_only')::boolean as read_only,
       pg_catalog.current_setting('server_encoding') as encoding,
       (select pg_catalog.count(pg_catalog.set_config(($1::text[])[n], ($2::text[])[n], false))
          from pg_catalog.generate_subscripts($1::text[], 1) as n),
       case when pg_catalog.has_parameter_privilege('log_parameter_max_length', 'set')
            then pg_catalog.set_config('log_parameter_max_length', '0', false) end
"""
_LOOK: Final = """
select pg_catalog.pg_is_in_recovery() as standby,
       pg_catalog.current_setting('transaction_read_only')::boolean as read_only,
       pg_catalog.current_setting('server_encoding') as encoding
"""
_ISOLATION: Final = """
select pg_catalog.current_setting('default_transaction_isolation') as isolation, current_user as role,
       pg_catalog.current_database() as database
"""


@dataclass(frozen=True, slots=True)
class State:
    """The current state of a server."""

    standby: bool
    read_only: bool

    def fault(self, wanted: str) -> str | None:
        """Return why the server does not fit these target_session_attrs, or None."""
        match wanted:
            case "read-write":
                return self.write_fault()
            case "primary":
                return "is a standby" if self.standby else None
            case "standby":
                return None if self.standby else "is a primary"
            case "read-only":
                return None if self.read_only or self.standby else "takes changes"
            case _:
                return None

    def write_fault(self) -> str | None:
        """Return why the server accepts no writes, or None."""
        if self.standby:
            return "is a standby (in recovery)"
        return "is read-only (default_transaction_read_only)" if self.read_only else None


async def settle(connection: asyncpg.Connection, *, pooled: bool) -> State:
    """Set the session settings that Pulse relies on and return the state of the server, in one round trip.

    pooled: the session belongs to a pooler, where a SET could go to any server connection, so nothing is set.
    Raises UnsafeDatabase if the database is not in UTF-8.
    """
    try:
        row = await _prepare(connection, pooled=pooled)
    except asyncpg.FeatureNotSupportedError as error:
        # A standby refuses every query if transactions are serializable by default.
        if pooled:
            raise WrongServer(f"the server behind the pooler is a standby: {error}") from error
        await connection.execute("set default_transaction_isolation = 'read committed'")
        row = await _prepare(connection, pooled=pooled)
    if row["encoding"] != "UTF8":
        raise UnsafeDatabase(
            f"the database has the encoding {row['encoding']}, and Pulse stores any text: create it with encoding UTF8"
        )
    return State(row["standby"], row["read_only"])


async def _prepare(connection: asyncpg.Connection, *, pooled: bool) -> asyncpg.Record:
    if pooled:
        return await connection.fetchrow(_LOOK)
    return await connection.fetchrow(_PREPARE, list(_SETTINGS), list(_SETTINGS.values()))


async def read_state(connection: asyncpg.Connection, *, seconds: float) -> State:
    """Query the state of the server."""
    row = await connection.fetchrow(_LOOK, timeout=seconds)
    return State(row["standby"], row["read_only"])


def reported_state(connection: asyncpg.Connection) -> State:
    """Return the state that the server last reported, without a round trip. A pooler reports nothing."""
    reported = connection.get_settings()
    return State(
        getattr(reported, "in_hot_standby", "off") == "on",
        getattr(reported, "default_transaction_read_only", "off") == "on",
    )


async def check_pooled_session(connection: asyncpg.Connection) -> None:
    """Raise UnsafeDatabase if sessions behind a pooler have another isolation level than Pulse needs."""
    row = await connection.fetchrow(_ISOLATION)
    if row["isolation"] != "read committed":
        raise UnsafeDatabase(
            f"default_transaction_isolation is {row['isolation']}, which nothing can set for a session behind a pooler:"
            f' run alter role "{row["role"]}" in database "{row["database"]}"'
            " set default_transaction_isolation = 'read committed'"
        )


def require(state: State, wanted: str, place: object) -> None:
    """Raise WrongServer if the server does not fit target_session_attrs."""
    fault = state.fault(wanted)
    if fault is not None:
        raise WrongServer(f"{place} {fault}")
