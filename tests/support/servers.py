"""New servers, the embedded one and Debian's, and logins on them."""

import getpass
from contextlib import suppress
from pathlib import Path

import psycopg

from services.local.postgres.server import EmbeddedPostgres
from tests.support.wait import until_now

DEBIAN_15 = "/usr/lib/postgresql/15/bin/postgres"


def connect(url: str) -> psycopg.Connection[tuple[object, ...]]:
    """Open a connection in autocommit mode."""
    return psycopg.connect(url, autocommit=True)


def admit(server: EmbeddedPostgres, *roles: str) -> None:
    """Let this user log in as existing roles; before 16 the server's identity map names each role."""
    with connect(server.url()) as session:
        row = session.execute("show ident_file").fetchone()
        assert row is not None
        with Path(str(row[0])).open("a") as identities:
            identities.writelines(f"pulse {getpass.getuser()} {role}\n" for role in roles)
        session.execute("select pg_reload_conf()")

    def are_let_in() -> bool:
        with suppress(psycopg.OperationalError):
            for role in roles:
                connect(server.url(user=role, database="postgres")).close()
            return True
        return False

    until_now(are_let_in)


def make_login(server: EmbeddedPostgres, *attributes: str) -> str:
    """Make a login named deployer and return its URL once the server accepts it."""
    with connect(server.url()) as session:
        session.execute(f"create role deployer login {' '.join(attributes)}".encode())
    admit(server, "deployer")
    return server.url(user="deployer")
