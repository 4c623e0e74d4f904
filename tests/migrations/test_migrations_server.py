"""Migrations on servers, databases and logins with other defaults, and on those that Pulse cannot support."""

import os
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Thread

import psycopg
import pytest
from alembic import command
from alembic.util import CommandError
from psycopg import sql

from migrations.server import UnsuitableServer, connect
from services.local.postgres.server import EmbeddedPostgres
from tests.support.migrator import ROOT, Migrator, dump_schema
from tests.support.wait import until_now

ODD = {
    "array_nulls": "off",
    "bytea_output": "escape",
    "check_function_bodies": "off",
    "client_encoding": "LATIN1",
    "datestyle": "German, DMY",
    "default_transaction_deferrable": "on",
    "default_transaction_isolation": "serializable",
    "default_transaction_read_only": "on",
    "extra_float_digits": "-15",
    "idle_in_transaction_session_timeout": "1",
    "intervalstyle": "iso_8601",
    "lock_timeout": "1",
    "quote_all_identifiers": "on",
    "search_path": "nowhere",
    "standard_conforming_strings": "off",
    "timezone": "Asia/Kolkata",
    "transform_null_equals": "on",
}


def alembic(*arguments: str, url: str, **settings: str) -> "subprocess.CompletedProcess[str]":
    """Run the command as a person does and return the finished process."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("PULSE_", "PG"))}
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        check=False,
        cwd=ROOT,
        env={**inherited, "PULSE_MIGRATION_URL": url, **settings},
        capture_output=True,
        text=True,
    )


def refusal(url: str) -> str:
    """Return the one line that `alembic upgrade head` prints; every other command must print the same."""
    done = alembic("alembic", "upgrade", "head", url=url)
    assert done.returncode != 0
    (line,) = (done.stdout + done.stderr).splitlines()
    text = line.removeprefix("FAILED: ")
    for action in (Migrator(url).upgrade, Migrator(url).rebuild, lambda: Migrator(url).run(command.current)):
        with pytest.raises(CommandError) as refused:
            action()
        assert str(refused.value) == text
    with pytest.raises(UnsuitableServer) as unsuitable:
        connect(url)
    assert str(unsuitable.value) == text
    return text


@pytest.mark.slow
@pytest.mark.parametrize(
    ("scope", "isolation"), [("database {0}", "serializable"), ("role {1} in database {0}", "repeatable read")]
)
def test_defaults_of_a_database_or_a_login_change_nothing(empty_url: str, scope: str, isolation: str) -> None:
    """Up, down, up again and a rebuilt layer give the schema that a plain database gets."""
    plain = Migrator(empty_url)
    plain.upgrade()
    expected = dump_schema(empty_url)
    plain.downgrade("base")
    with psycopg.connect(empty_url, autocommit=True) as session:
        place = sql.SQL(scope).format(sql.Identifier(session.info.dbname), sql.Identifier(session.info.user))
        for name, value in {**ODD, "default_transaction_isolation": isolation}.items():
            statement = sql.SQL("alter {} set {} = {}").format(place, sql.SQL(name), sql.Literal(value))
            session.execute(statement)
        if scope.startswith("role"):
            # A login may start as another role, which owns no object here.
            session.execute(sql.SQL("alter {} set role = pg_monitor").format(place))
    odd = Migrator(empty_url)
    odd.upgrade()
    assert odd.upgrade().startswith("nothing to do")
    odd.downgrade("base")
    odd.upgrade()
    assert "applied at revision" in odd.rebuild()
    assert "No new upgrade operations" in odd.run(command.check)
    with psycopg.connect(empty_url, autocommit=True) as session:
        session.execute("set role none")
        session.execute("set default_transaction_read_only = off")
        session.execute(sql.SQL("alter {} reset all").format(place))
    assert dump_schema(empty_url) == expected


def test_variables_of_the_client_change_nothing(empty_url: str) -> None:
    """Libpq passes these variables on."""
    options = " ".join(f"-c {name}={value}" for name, value in ODD.items() if " " not in value)
    done = alembic(
        "alembic", "upgrade", "head", url=empty_url, PGOPTIONS=options, PGTZ="Asia/Kolkata", PGCLIENTENCODING="LATIN1"
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
def test_another_encoding_is_refused(empty_url: str, encoding: str) -> None:
    """Another encoding could not store all input."""
    with psycopg.connect(empty_url, autocommit=True) as session:
        name = f"{session.info.dbname}_{encoding.lower()}"
        made = "create database {} encoding {} locale_provider libc locale 'C' template template0"
        session.execute(sql.SQL(made).format(sql.Identifier(name), sql.Literal(encoding)))
        try:
            assert refusal(empty_url.replace(session.info.dbname, name)) == (
                f"database {name} has the encoding {encoding} and Pulse needs UTF8: make another one with create"
                " database NAME encoding 'UTF8' template template0"
            )
        finally:
            session.execute(sql.SQL("drop database {}").format(sql.Identifier(name)))


@pytest.mark.slow
def test_a_standby_is_refused(tmp_path: Path) -> None:
    """A standby takes no changes, and the primary is elsewhere."""
    server = EmbeddedPostgres(tmp_path / "server")
    with server:
        data = server.places.data
    (data / "standby.signal").touch()
    start = server.prepare()
    with subprocess.Popen(
        start.argv,
        cwd=start.cwd,
        env=start.env,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        **start.options,
    ) as process:

        def answers() -> bool:
            with suppress(psycopg.OperationalError), psycopg.connect(server.url()):
                return True
            return False

        try:
            until_now(answers, seconds=30)
            assert refusal(server.url()) == (
                "the server of database pulse is a standby or in recovery, which takes no changes: name the primary in"
                " PULSE_MIGRATION_URL"
            )
        finally:
            process.send_signal(2)
            process.wait(30)
            server.release()


@contextmanager
def old_server() -> Iterator[str]:
    """Yield a server that introduces itself as Postgres 14 and answers each statement with success; its URL."""

    def message(kind: bytes, body: bytes) -> bytes:
        return kind + struct.pack("!i", len(body) + 4) + body

    parameters = {b"server_version": b"14.9", b"client_encoding": b"UTF8", b"server_encoding": b"UTF8"}
    ready = message(b"Z", b"I")
    hello = message(b"R", struct.pack("!i", 0))
    hello += b"".join(message(b"S", name + b"\0" + value + b"\0") for name, value in parameters.items()) + ready

    def serve(listening: socket.socket) -> None:
        with suppress(OSError):
            while True:
                client, _ = listening.accept()
                with client:
                    client.recv(4096)
                    client.sendall(hello)
                    while client.recv(4096)[:1] == b"Q":
                        client.sendall(message(b"C", b"SET\0") + ready)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        Thread(target=serve, args=(listening,), daemon=True).start()
        yield f"postgresql://old@127.0.0.1:{listening.getsockname()[1]}/pulse?sslmode=disable&gssencmode=disable"
        listening.shutdown(socket.SHUT_RDWR)


def test_an_old_server_is_refused() -> None:
    """The refusal comes before any statement that the server does not know."""
    with old_server() as url:
        assert refusal(url) == "the server is Postgres 14 and Pulse needs 15 or newer: upgrade the server"
