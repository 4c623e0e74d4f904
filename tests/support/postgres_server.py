"""The tests' Postgres server."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import psycopg

from services.local.postgres.server import EmbeddedPostgres

PASSWORD = "only-for-tests"


ACTOR = {"pulse.actor_type": "user", "pulse.actor_id": "tests"}


@dataclass(frozen=True, slots=True)
class Server:
    """Address of the tests' server; the attributes are those that pytest-postgresql requires."""

    host: str
    port: str
    user: str
    password: str | None
    options: str = ""
    maintenance_dbname: str = "postgres"
    template_dbname: str = "template1"

    def url(self, *, database: str, user: str | None = None) -> str:
        """URL of a database as the superuser, or as a role of Pulse."""
        password = PASSWORD if user else self.password
        login = quote(user or self.user, safe="") + (f":{quote(password, safe='')}" if password else "")
        return f"postgresql://{login}@/{database}?host={quote(self.host, safe='')}&port={self.port}"


@contextmanager
def throwaway_server(home: Path) -> Iterator[EmbeddedPostgres]:
    """Run a server without durability, with the programs selected for the tests."""
    programs = os.environ.get("PULSE_TEST_POSTGRES_BIN")
    with EmbeddedPostgres(home, durable=False, bin_dir=Path(programs) if programs else None) as server:
        if programs:
            # Before Postgres 16 no map admits roles that it does not name. The socket's directory blocks other users.
            (server.places.data / "pg_hba.conf").write_text("local all all trust\nlocal replication all trust\n")
            with psycopg.connect(server.url(), autocommit=True) as session:
                session.execute("select pg_reload_conf()")
        yield server
