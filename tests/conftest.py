"""The database of the tests: one server a test process, one migrated template, one clone a test.

The server is one of our own, on memory and without durability, of the embedded programs or of those in the directory
PULSE_TEST_POSTGRES_BIN. Or it is the one that PULSE_TEST_URL names (a superuser's URL; Postgres 15 or newer), of which
only databases with names of our own are touched, and the roles of Pulse.
"""

import os
import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import hypothesis
import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict
from pytest_postgresql import factories

from migrations.role_names import CALLERS
from migrations.roles import ensure_roles
from services.cli.database import StackSettings
from services.shared import db
from services.shared.settings import OpsSettings, UiSettings
from tests.support.hardened_server import DEPLOYER, harden, make_deployer, migrate_as_deployer
from tests.support.migrator import Migrator
from tests.support.postgres_server import ACTOR, PASSWORD, Server, throwaway_server
from tests.support.sealer import Seal, sealer_of

# The time for an example depends on the machine.
hypothesis.settings.register_profile("pulse", deadline=None)
hypothesis.settings.load_profile("pulse")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark each test that uses the server, so that it can be run again on another version of Postgres."""
    for item in items:
        if "pg_server" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.database)


@pytest.fixture(scope="session")
def pg_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The server: PULSE_TEST_URL, or one of our own that lives as long as this process."""
    given = os.environ.get("PULSE_TEST_URL")
    if given:
        parts = {name: str(value) for name, value in conninfo_to_dict(given).items() if value is not None}
        yield Server(
            host=parts.get("host", "localhost"),
            port=parts.get("port", "5432"),
            user=parts.get("user", "postgres"),
            password=parts.get("password"),
        )
        return
    with throwaway_server(tmp_path_factory.mktemp("postgres")) as server:
        yield Server(host=str(server.socket_dir), port=str(server.port), user="postgres", password=None)


def _migrate(*, host: str, port: str, user: str, dbname: str, password: str | None, **_: Any) -> None:
    """Bring the template to head as on a hardened server: PUBLIC has nothing, and a login without privileges migrates.

    The roles get passwords, for a server of PULSE_TEST_URL may ask for them.
    """
    server = Server(host, port, user, password)
    with (
        pytest.MonkeyPatch.context() as environment,
        psycopg.connect(server.url(database=dbname), autocommit=True) as administrator,
    ):
        for role in CALLERS:
            environment.setenv(f"PULSE_{role.upper()}_PASSWORD", PASSWORD)
        make_deployer(administrator, PASSWORD)
        harden(administrator)
        migrate_as_deployer(Migrator(server.url(database=dbname, user=DEPLOYER)), administrator)
        ensure_roles(administrator, set_passwords=True)


# The pid keeps two runs on one PULSE_TEST_URL apart.
migrated_template = factories.postgresql_noproc(
    dbname=f"pulse_test_{os.getpid()}_", depends_on="pg_server", load=[_migrate]
)
_clone = factories.postgresql("migrated_template")
empty_template = factories.postgresql_noproc(dbname=f"pulse_empty_{os.getpid()}_", depends_on="pg_server")
_empty = factories.postgresql("empty_template")


@pytest.fixture(autouse=True)
def spool_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Directory in which the processes of a test keep audit events while their database is away."""
    path = tmp_path / "audit" / "spool"
    monkeypatch.setenv("PULSE_AUDIT_SPOOL_DIR", str(path))
    return path


@pytest.fixture
def database_url(pg_server: Server, _clone: psycopg.Connection[Any]) -> str:
    """Superuser's URL of a fresh clone of the migrated template."""
    return pg_server.url(database=_clone.info.dbname)


@pytest.fixture
def app_url(pg_server: Server, _clone: psycopg.Connection[Any]) -> str:
    """URL of the same clone as pulse_app, the role of the services."""
    return pg_server.url(database=_clone.info.dbname, user="pulse_app")


@pytest.fixture
def ops_url(pg_server: Server, _clone: psycopg.Connection[Any]) -> str:
    """URL of the same clone as pulse_ops, the role of the ops worker."""
    return pg_server.url(database=_clone.info.dbname, user="pulse_ops")


@pytest.fixture
def role_url(pg_server: Server, _clone: psycopg.Connection[Any]) -> Callable[[str], str]:
    """URL of the same clone as any role of Pulse that may log in."""
    return lambda role: pg_server.url(database=_clone.info.dbname, user=role)


@pytest.fixture
def empty_url(pg_server: Server, _empty: psycopg.Connection[Any]) -> str:
    """Superuser's URL of an empty database."""
    return pg_server.url(database=_empty.info.dbname)


@pytest.fixture
async def conn(database_url: str) -> AsyncIterator[asyncpg.Connection]:
    """Superuser connection to the clone, with an actor set as tracked tables require."""
    connection = await asyncpg.connect(database_url, server_settings=ACTOR)
    yield connection
    await connection.close()


@pytest.fixture
async def app_pool(app_url: str) -> AsyncIterator[db.Pool]:
    """Pool of the services, as pulse_app, with their codecs."""
    pool = await db.open_pool(UiSettings(database_url=app_url))
    yield pool
    await pool.close()


@pytest.fixture
async def ops_pool(ops_url: str) -> AsyncIterator[db.Pool]:
    """Pool of the ops worker, as pulse_ops."""
    pool = await db.open_pool(OpsSettings(database_url=ops_url))
    yield pool
    await pool.close()


@pytest.fixture
def seal(ops_pool: db.Pool, tmp_path: Path) -> Seal:
    """Seals what is committed."""
    sealer = sealer_of(tmp_path)
    return lambda: sealer.seal(ops_pool)


@pytest.fixture
async def auditor_pool(role_url: Callable[[str], str]) -> AsyncIterator[db.Pool]:
    """Pool of `pulse audit`, as pulse_auditor."""
    pool = await db.open_pool(StackSettings(database_url=role_url("pulse_auditor"), pool_min_size=0, pool_max_size=2))
    yield pool
    await pool.close()


@pytest.fixture
def require() -> Callable[[str], str]:
    """Return the path of a program from outside Python; skip the test, or fail in CI, if it is missing."""

    def find(program: str) -> str:
        path = shutil.which(program)
        if path is not None:
            return path
        if os.environ.get("PULSE_TEST_REQUIRE") == "all":
            pytest.fail(f"{program} is not installed and PULSE_TEST_REQUIRE=all")
        pytest.skip(f"{program} is not installed: what needs it is NOT tested")

    return find
