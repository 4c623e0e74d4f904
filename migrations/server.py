"""Connections for migrations: sessions with known settings, on databases that Pulse can work with."""

from typing import Any

import psycopg
from psycopg.rows import tuple_row

OLDEST = 15
# Servers, databases and roles may have other defaults. The meaning of revisions and of sql/, and the output of the
# catalog, must not depend on them.
_SETTINGS = {
    "array_nulls": "on",
    "backslash_quote": "safe_encoding",
    "bytea_output": "hex",
    "check_function_bodies": "on",
    "createrole_self_grant": "",
    "datestyle": "ISO, YMD",
    "default_table_access_method": "heap",
    "default_tablespace": "",
    "default_transaction_deferrable": "off",
    "default_transaction_isolation": "read committed",
    "default_transaction_read_only": "off",
    "extra_float_digits": "1",
    "idle_in_transaction_session_timeout": "0",
    "idle_session_timeout": "0",
    "intervalstyle": "postgres",
    "lock_timeout": "0",
    "quote_all_identifiers": "off",
    "row_security": "on",
    "search_path": "public",
    "standard_conforming_strings": "on",
    "timezone": "UTC",
    "transaction_timeout": "0",
    "transform_null_equals": "off",
}
_SINCE = {"createrole_self_grant": 16, "transaction_timeout": 17}


class UnsuitableServer(Exception):
    """Raised if the database cannot hold Pulse; the message says why and what to do."""


def connect(url: str, *, autocommit: bool = False) -> psycopg.Connection[Any]:
    """Open a session with the settings of migrations. Raises UnsuitableServer."""
    session = psycopg.connect(url, autocommit=True, client_encoding="utf8")
    try:
        session.execute("set statement_timeout = 0")
        _refuse_unsuitable(session)
        # SET and SHOW, because a hardened server may withhold the functions and views that do the same.
        major = session.info.server_version // 10000
        for name, value in {"role": "none", **_SETTINGS}.items():
            if major >= _SINCE.get(name, OLDEST):
                session.execute(f"set {name} = '{value}'".encode())
        session.autocommit = autocommit
    except BaseException:
        session.close()
        raise
    return session


def _refuse_unsuitable(session: psycopg.Connection[Any]) -> None:
    major = session.info.server_version // 10000
    if major < OLDEST:
        raise UnsuitableServer(f"the server is Postgres {major} and Pulse needs {OLDEST} or newer: upgrade the server")
    database, encoding = session.info.dbname, _show(session, "server_encoding")
    if encoding != "UTF8":
        raise UnsuitableServer(
            f"database {database} has the encoding {encoding} and Pulse needs UTF8: make another one with"
            f" create database NAME encoding 'UTF8' template template0"
        )
    if _show(session, "in_hot_standby") == "on":
        raise UnsuitableServer(
            f"the server of database {database} is a standby or in recovery, which takes no changes: name the primary"
            " in PULSE_MIGRATION_URL"
        )


def _show(session: psycopg.Connection[Any], setting: str) -> str:
    row = session.cursor(row_factory=tuple_row).execute(f"show {setting}".encode()).fetchone()
    assert row is not None
    return str(row[0])
