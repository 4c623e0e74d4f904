"""The classes of database errors, for pools, passes and HTTP.

class         SQLSTATE                   reaction of Pulse
outage        08, 25, 28, 3D, 53, 55P03, wait, answer 503; nothing was changed
              57
stale session 25006, a time-out          the same, and replace the connections of the pool
rebuilt       XX000 cache lookup, …      repeat once on a new connection
undone        40                         repeat once
"""

from typing import Final

import asyncpg


class UnsafeDatabase(ConnectionError):
    """The database cannot keep Pulse's data safely. A process does not start, and a running one waits."""


class WrongServer(ConnectionError):
    """The server answers but is of the wrong kind: a standby, read-only, or a primary instead of a standby."""


# A connection was lost, refused or not established. All other errors are answers of the server.
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
    asyncpg.InternalClientError,  # raised if the server closed the connection between two statements
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
    """Return a message for an error that ends with an outage of the database; None for every other error."""
    if isinstance(error, WrongServer):
        return _READ_ONLY
    if isinstance(error, asyncpg.PostgresError):
        state = error.sqlstate or ""
        return _STATES.get(state) or _CLASSES.get(state[:2])
    return _AWAY if isinstance(error, UNAVAILABLE) else None


def ends_by_itself(error: BaseException) -> bool:
    """Return whether a starting process should wait. False if an operator must correct a login or the database."""
    by_hand = (UnsafeDatabase, asyncpg.InvalidAuthorizationSpecificationError, asyncpg.InvalidCatalogNameError)
    return outage(error) is not None and not isinstance(error, by_hand)


def is_stale(error: BaseException) -> bool:
    """Return whether the connection may lead to a wrong or silent server."""
    return isinstance(error, TimeoutError | asyncpg.ReadOnlySQLTransactionError)


def is_rebuilt(error: BaseException) -> bool:
    """Return whether a migration replaced an object of the statement, so that a repetition succeeds."""
    if isinstance(error, _REBUILT):
        return True
    return isinstance(error, asyncpg.PostgresError) and any(text in str(error) for text in _REBUILT_TEXTS)
