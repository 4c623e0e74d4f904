"""The meaning of database errors, decided once for pools, passes and HTTP.

kind          SQLSTATE                   what Pulse does
outage        08, 25, 28, 3D, 53, 55P03, waits, answers 503; nothing was changed
              57
stale session 25006, a time-out          also replaces the pool's connections
rebuilt       XX000 cache lookup, …      runs the same once more on a new connection
undone        40                         runs the same once more
"""

from typing import Final

import asyncpg


class UnsafeDatabase(ConnectionError):
    """The database cannot keep what Pulse stores: a process does not start, and a running one waits."""


class WrongServer(ConnectionError):
    """The server answers, but it is a standby or read-only, or a primary where a standby is wanted."""


# A connection that was lost, refused or never made; anything else is an answer of the server.
UNAVAILABLE: Final = (
    OSError,
    TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.IdleSessionTimeoutError,
    asyncpg.TooManyConnectionsError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # what asyncpg says when the server's farewell reached it between two statements
)

_AWAY = "The database is not available."
_READ_ONLY = "The database takes no changes now: its server is a standby or read-only."
_CLASSES: Final = {
    "08": _AWAY,
    "25": _READ_ONLY,
    "28": "The database refuses the login of this service.",
    "3D": _AWAY,
    "53": "The database has no room left for this request.",
    "57": "The database gave up on this request.",
}
_STATES: Final = dict.fromkeys(("57P01", "57P02", "57P03", "57P04", "57P05"), _AWAY) | {
    "55P03": "The database is busy: a lock was not free in time."
}

# Errors of a statement that ran while a migration replaced the functions and types that it uses.
_REBUILT: Final = (
    asyncpg.UndefinedFunctionError,
    asyncpg.InvalidSchemaNameError,
    asyncpg.InvalidCachedStatementError,
    asyncpg.OutdatedSchemaCacheError,
)
_REBUILT_TEXTS: Final = ("cache lookup failed for ", "could not open relation with OID ", "cached plan must not change")


def outage(error: BaseException) -> str | None:
    """Return what to say of an error that ends when the database is well again; None for every other error."""
    if isinstance(error, WrongServer):
        return _READ_ONLY
    if isinstance(error, asyncpg.PostgresError):
        state = error.sqlstate or ""
        return _STATES.get(state) or _CLASSES.get(state[:2])
    return _AWAY if isinstance(error, UNAVAILABLE) else None


def ends_by_itself(error: BaseException) -> bool:
    """Return whether a process that starts should wait: not for a login or a database that must be mended by hand."""
    by_hand = (UnsafeDatabase, asyncpg.InvalidAuthorizationSpecificationError, asyncpg.InvalidCatalogNameError)
    return outage(error) is not None and not isinstance(error, by_hand)


def is_stale(error: BaseException) -> bool:
    """Return whether the connection leads to a server that is not, or no longer, the one to use."""
    return isinstance(error, TimeoutError | asyncpg.ReadOnlySQLTransactionError)


def is_rebuilt(error: BaseException) -> bool:
    """Return whether a migration replaced what a statement used: the same statement then succeeds."""
    if isinstance(error, _REBUILT):
        return True
    return isinstance(error, asyncpg.PostgresError) and any(text in str(error) for text in _REBUILT_TEXTS)
