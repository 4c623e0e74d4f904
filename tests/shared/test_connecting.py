"""The settings of each session, and servers that refuse, hang or are not the wanted one."""

import asyncio
import logging
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import asyncpg
import psycopg
import pytest

from services.cli.database import StackSettings
from services.shared import db
from services.shared.connecting.connector import Connector
from services.shared.connecting.faults import UnsafeDatabase, ends_by_itself, is_rebuilt
from services.shared.settings import ExporterSettings, UiSettings
from tests.support.api_client import open_api
from tests.support.migrator import Migrator
from tests.support.postgres_server import PASSWORD, Server
from tests.support.processes import ROOT, service
from tests.support.replicas import Node, Switch, primary
from tests.support.wait import until

OFF_THE_RAILS = {
    "default_transaction_isolation": "serializable",
    "default_transaction_deferrable": "on",
    "timezone": "Asia/Kathmandu",
    "datestyle": "German, DMY",
    "intervalstyle": "sql_standard",
    "search_path": "nowhere",
    "quote_all_identifiers": "on",
    "bytea_output": "escape",
    "extra_float_digits": "-15",
    "standard_conforming_strings": "off",
    "transform_null_equals": "on",
    "idle_session_timeout": "3600000",
    "log_parameter_max_length_on_error": "-1",
}


async def derail(conn: asyncpg.Connection, **more: str) -> None:
    """Give a test's database defaults that no query of Pulse was written for."""
    name = await conn.fetchval("select current_database()")
    for setting, value in {**OFF_THE_RAILS, **more}.items():
        quoted = ", ".join(f"'{part.strip()}'" for part in value.split(","))
        await conn.execute(f'alter database "{name}" set {setting} = {quoted}')


async def shown(connection: Any, names: Any) -> dict[str, str]:
    """Return the settings of a session."""
    return {name: await connection.fetchval(f"show {name}") for name in names}


async def test_a_session_does_not_depend_on_the_defaults_of_the_database(
    conn: asyncpg.Connection, app_url: str, role_url: Callable[[str], str]
) -> None:
    straight = await asyncpg.connect(app_url)
    expected = {
        **await shown(straight, OFF_THE_RAILS),
        "timezone": "UTC",
        "search_path": "pg_catalog, public, pg_temp",
        "log_parameter_max_length_on_error": "0",
    }
    await straight.close()
    assert expected["default_transaction_isolation"] == "read committed"
    await derail(conn)
    pool = await db.open_pool(UiSettings(database_url=app_url))
    async with pool.acquire() as connection:
        assert await shown(connection, OFF_THE_RAILS) == expected
        assert await shown(connection, ["client_encoding", "application_name"]) == {
            "client_encoding": "UTF8",
            "application_name": "pulse-ui_iot",
        }
        connections = [await connection.fetchval("show transaction_isolation")]
    await db.close_pool(pool)
    for settings in (ExporterSettings(database_url=role_url("pulse_exporter")), StackSettings(database_url=app_url)):
        one = await db.connector_for(settings, settings.database_url).connect()
        assert await shown(one, OFF_THE_RAILS) == expected
        connections.append(await one.fetchval("show transaction_isolation"))
        await one.close()
    assert connections == ["read committed"] * 3


async def test_the_api_answers_the_same_whatever_the_defaults(
    conn: asyncpg.Connection, app_url: str, seal: Callable[[], Awaitable[int]]
) -> None:
    """Audit pages once answered 422 under another isolation level, and times came back in two zones."""
    await conn.execute("select ingest.create_tenant('acme', 'Acme')")
    await derail(conn)
    async with open_api(app_url) as api:
        await api.make("/api/v1/devices", {"device_id": "pump-1", "name": "Pump 1"})
        await until(seal)
        page = await api.call("GET", "/api/v1/audit/events", role="auditor")
        assert page.status_code == 200, page.text
        made = [event for event in page.json()["items"] if event["event_type"] == "config.device_created"]
        assert [event["entity_id"] for event in made] == ["pump-1"]
        times = [str(made[0]["timestamp"])]
        times += [(await api.call("GET", "/api/v1/devices")).json()["items"][0]["created_at"]]
        assert {time[-1] for time in times} == {"Z"}
        assert times[0][:13] == times[1][:13]


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
async def test_a_database_that_is_not_in_utf8_is_refused_in_one_line(
    conn: asyncpg.Connection, app_url: str, encoding: str
) -> None:
    name = f"{await conn.fetchval('select current_database()')}_{encoding.lower()}"
    await conn.execute(
        f'create database "{name}" encoding {encoding} template template0 locale_provider libc locale "C"'
    )
    try:
        url = app_url.replace(f"/{await conn.fetchval('select current_database()')}?", f"/{name}?")
        async with service("services.evaluator_iot", url) as running:
            assert await asyncio.wait_for(running.process.wait(), 30) == 1
            await until(lambda: running.lines)
        (line,) = running.lines
        assert line["message"].startswith(f"cannot start: the database has the encoding {encoding}, and Pulse stores")
        done = pulse(url, "tenant", "list")
        assert (done.returncode, done.stderr.count("\n"), f"has the encoding {encoding}" in done.stderr) == (1, 1, True)
    finally:
        await conn.execute(f'drop database "{name}" with (force)')


def pulse(url: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run the command with its own database."""
    return run("services.cli", url, *arguments)


def run(module: str, url: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run a module to its end."""
    env = {"PATH": "/usr/bin:/bin", "PULSE_DATABASE_URL": url, "HOME": "/nonexistent"}
    argv = [sys.executable, "-m", module, *arguments]
    return subprocess.run(argv, cwd=ROOT, env=env, check=False, capture_output=True, text=True, timeout=60)


@pytest.mark.slow
async def test_a_bad_url_ends_processes_and_commands_with_status_2(app_url: str) -> None:
    url = app_url + "&sslmode=bogus"
    async with service("services.dispatcher", url) as running:
        assert await asyncio.wait_for(running.process.wait(), 30) == 2
    done = pulse(url, "tenant", "list")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("pulse: PULSE_DATABASE_URL: sslmode must be disable, allow")
    migrated = run("alembic", url, "upgrade", "head")
    assert migrated.returncode == 2
    said = (migrated.stdout + migrated.stderr).strip()
    assert (said.count("\n"), "PULSE_DATABASE_URL: sslmode must be disable, allow" in said) == (0, True), said


def connector(url: str, *, attrs: str = "any") -> Connector:
    """Return a connector that accepts any server."""
    return Connector(url, application_name="t", default_attrs=lambda _: attrs, pooled=False)


@pytest.fixture
async def node() -> AsyncIterator[Node]:
    """A migrated server whose roles need passwords."""
    async with primary() as running:
        await running.execute("create database pulse")
        await asyncio.to_thread(Migrator(running.url(database="pulse")).upgrade)
        await running.execute("select ingest.create_tenant('acme', 'Acme')", database="pulse")
        hba = "host all postgres 127.0.0.1/32 trust\nhost all all 127.0.0.1/32 scram-sha-256\n"
        (running.data / "pg_hba.conf").write_text(hba)
        await running.execute("alter role pulse_app password 'one'", "select pg_reload_conf()")
        yield running


@pytest.mark.slow
async def test_a_password_may_rotate_under_a_running_pool(node: Node, tmp_path: Path) -> None:
    """The file is read for each connection: the API answers 503 until it is right, and a wrong start fails."""
    passfile = tmp_path / "pgpass"
    passfile.write_text("127.0.0.1:*:pulse:pulse_app:one\n")
    passfile.chmod(0o600)
    url = node.url("pulse_app", "pulse", f"?passfile={passfile}")
    async with open_api(url) as api:
        assert (await api.call("GET", "/api/v1/devices")).status_code == 200
        await node.execute(
            "alter role pulse_app password 'two'",
            "select pg_terminate_backend(pid) from pg_stat_activity where usename = 'pulse_app'",
        )

        async def is_refused() -> bool:
            response = await api.call("POST", "/api/v1/devices", json={"device_id": "p", "name": "P"})
            assert response.status_code == 503, response.text
            return "refuses the login of this service" in response.text

        await until(is_refused)
        assert "refuses the login" in (await api.client.get("/readyz")).text
        async with service("services.dispatcher", url) as running:
            assert await asyncio.wait_for(running.process.wait(), 30) == 1
            await until(lambda: running.lines)
        assert [line["message"] for line in running.lines] == [
            'cannot start: password authentication failed for user "pulse_app"'
        ]
        passfile.write_text("127.0.0.1:*:pulse:pulse_app:two\n")
        assert (await api.call("POST", "/api/v1/devices", json={"device_id": "p", "name": "P"})).status_code == 201
        assert (await api.client.get("/readyz")).status_code == 200
        # No connection slot is free, neither for this role nor on the server.
        await node.execute("alter role pulse_app connection limit 0")
        await node.execute("select pg_terminate_backend(pid) from pg_stat_activity where usename = 'pulse_app'")
        await until(lambda: answers(api, 503, "has no room left"))
        await node.execute("alter role pulse_app connection limit -1")
        await until(lambda: answers(api, 200))
        # A server that shuts down accepts no new session.
        keeper = await asyncpg.connect(node.url())
        await node.execute("select pg_terminate_backend(pid) from pg_stat_activity where usename = 'pulse_app'")
        assert node.process is not None
        node.process.send_signal(signal.SIGTERM)
        await until(lambda: answers(api, 503, "is not available"))
        await keeper.close()
        await asyncio.wait_for(node.process.wait(), 20)
        await node.start()
        await until(lambda: answers(api, 200), seconds=20)
        # The limits of connection and statement bound a hung server, and it is used again once it answers.
        node.send(signal.SIGSTOP)
        assert "TimeoutError" in (await api.client.get("/readyz")).text
        node.send(signal.SIGCONT)
        await until(lambda: answers(api, 200), seconds=20)


async def answers(api: Any, status: int, text: str = "") -> bool:
    """Return whether a page of devices has this status; a failure must be 503."""
    response = await api.call("GET", "/api/v1/devices")
    assert response.status_code in (200, 503), response.text
    return response.status_code == status and text in response.text


async def test_a_silent_host_costs_its_own_limit_and_is_asked_last(conn: asyncpg.Connection, pg_server: Server) -> None:
    """This includes a caller with a shorter deadline, such as a probe."""
    name = await conn.fetchval("select current_database()")
    async with Switch(0) as silent:
        silent.target = None
        places = f"host=127.0.0.1,{quote(pg_server.host, safe='')}&port={silent.port},{pg_server.port}"
        url = f"postgresql://pulse_app:{PASSWORD}@/{name}?{places}"
        hasty = connector(url)
        with pytest.raises(TimeoutError):
            await hasty.connect(timeout=0.3)
        assert silent.accepted == 1
        await (await hasty.connect(timeout=1.5)).close()
        patient = connector(url + "&connect_timeout=1")
        await (await patient.connect()).close()
        asked = silent.accepted
        await (await patient.connect()).close()
        assert silent.accepted == asked
        alone = connector(f"postgresql://u@127.0.0.1:{silent.port}/d?connect_timeout=1")
        with pytest.raises(TimeoutError, match=rf"127\.0\.0\.1:{silent.port}: no answer in time"):
            await alone.connect()
        both = connector(f"postgresql://u@127.0.0.1:1,127.0.0.1:{silent.port}/d?connect_timeout=1")
        with pytest.raises(ConnectionError, match=r"127\.0\.0\.1:1: .*failed.*; .*: no answer in time"):
            await both.connect()


async def test_the_server_that_is_wanted(app_url: str, conn: asyncpg.Connection) -> None:
    name = await conn.fetchval("select current_database()")
    for attrs in ("any", "read-write", "primary", "prefer-standby"):
        await (await connector(f"{app_url}&target_session_attrs={attrs}").connect()).close()
    for attrs, fault in (("standby", "is a primary"), ("read-only", "takes changes")):
        with pytest.raises(db.WrongServer, match=fault):
            await connector(f"{app_url}&target_session_attrs={attrs}").connect()
    await conn.execute(f'alter database "{name}" set default_transaction_read_only = on')
    await (await connector(f"{app_url}&target_session_attrs=read-only").connect()).close()
    await (await connector(f"{app_url}&target_session_attrs=primary").connect()).close()
    with pytest.raises(db.WrongServer, match="is read-only"):
        await db.open_pool(UiSettings(database_url=app_url))
    await db.close_pool(await db.open_pool(StackSettings(database_url=app_url)))


DEBIAN = Path("/usr/lib/postgresql/15/bin")


@pytest.mark.slow
async def test_tls_means_what_libpq_means(tmp_path: Path, require: Callable[[str], str]) -> None:
    """The same URLs with services and psycopg, against a server with a certificate of a private authority."""
    openssl, _ = require("openssl"), require(str(DEBIAN / "postgres"))
    ca, key, crt = make_certificates(openssl, tmp_path)
    async with primary(binaries=DEBIAN) as node:
        for source, name in ((key, "server.key"), (crt, "server.crt")):
            (node.data / name).write_bytes(source.read_bytes())
            node.account.own(node.data / name, mode=0o600)
        await node.execute("alter system set ssl = on", "create role me login", "select pg_reload_conf()")
        hba = "hostssl all me 127.0.0.1/32 trust\nhost all postgres 127.0.0.1/32 trust\n"
        (node.data / "pg_hba.conf").write_text(hba)
        await node.execute("select pg_reload_conf()")

        async def encrypted(query: str) -> bool | None:
            """Return whether the session is encrypted, None without a session, for services and libpq alike."""
            url = f"postgresql://me@localhost:{node.port}/postgres?hostaddr=127.0.0.1&{query}"
            query_ssl = "select ssl from pg_stat_ssl where pid = pg_backend_pid()"
            try:
                session = await connector(url).connect()
            except (*db.UNAVAILABLE, asyncpg.PostgresError):
                ours = None
            else:
                ours = bool(await session.fetchval(query_ssl))
                await session.close()
            try:
                theirs = await psycopg.AsyncConnection.connect(url)
            except psycopg.OperationalError:
                assert ours is None, query
            else:
                async with theirs:
                    row = await (await theirs.execute(query_ssl)).fetchone()
                assert row == (ours,), query
            return ours

        other = tmp_path / "other"
        other.mkdir()
        other_ca = make_certificates(openssl, other)[0]
        await until(lambda: encrypted("sslmode=require"))
        assert await encrypted("sslmode=prefer")
        assert await encrypted("sslmode=allow")
        assert await encrypted("sslmode=disable") is None
        assert await encrypted(f"sslmode=verify-full&sslrootcert={ca}")
        assert await encrypted(f"sslmode=verify-ca&sslrootcert={ca}&ssl_min_protocol_version=TLSv1.3")
        assert await encrypted(f"sslmode=verify-full&sslrootcert={other_ca}") is None
        assert await encrypted(f"sslmode=require&sslrootcert={other_ca}") is None
        assert await encrypted("sslrootcert=system") is None
        elsewhere = f"postgresql://me@db.example:{node.port}/postgres?hostaddr=127.0.0.1&sslrootcert={ca}"
        with pytest.raises(OSError, match="certificate verify failed"):
            await connector(f"{elsewhere}&sslmode=verify-full").connect()
        await (await connector(f"{elsewhere}&sslmode=verify-ca").connect()).close()
        # A renewed authority applies from the next connection.
        url = f"postgresql://me@localhost:{node.port}/postgres?hostaddr=127.0.0.1&sslmode=verify-full&sslrootcert={ca}"
        renewed = connector(url)
        await (await renewed.connect()).close()
        ca.write_bytes(other_ca.read_bytes())
        with pytest.raises(OSError, match="certificate verify failed"):
            await renewed.connect()
        ca.unlink()
        with pytest.raises(ConnectionError, match=r"sslrootcert .* cannot be read"):
            await renewed.connect()


def make_certificates(openssl: str, directory: Path) -> tuple[Path, Path, Path]:
    """Return an authority's certificate, and key and certificate of localhost that it signed."""
    ca, ca_key, key, crt, request = (directory / name for name in ("ca.pem", "ca.key", "s.key", "s.crt", "s.csr"))

    def run(*arguments: object) -> None:
        subprocess.run([openssl, *map(str, arguments)], check=True, capture_output=True)

    new = ("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    run(*new, "-x509", "-days", 2, "-subj", "/CN=test", "-keyout", ca_key, "-out", ca)
    run(*new, "-subj", "/CN=localhost", "-keyout", key, "-out", request)
    names = directory / "names"
    names.write_text("subjectAltName=DNS:localhost")
    run("x509", "-req", "-days", 2, "-in", request, "-CA", ca, "-CAkey", ca_key, "-out", crt, "-extfile", names)
    return ca, key, crt


def refusal(state: str) -> asyncpg.PostgresError:
    """Return the error that asyncpg makes from a server's response."""
    made: asyncpg.PostgresError = asyncpg.PostgresError.new({"S": "ERROR", "V": "ERROR", "C": state, "M": "no"})
    return made


@pytest.mark.parametrize(
    ("states", "said"),
    [
        (["08000", "08006", "08P01", "57P01", "57P02", "57P03", "57P04", "57P05", "3D000"], "is not available"),
        (["25006", "25000"], "standby or read-only"),
        (["28000", "28P01"], "refuses the login"),
        (["53000", "53100", "53200", "53300"], "has no room left"),
        (["57014", "57000"], "gave up"),
        (["22001", "23505", "40001", "42501", "XX000", "PU404"], None),
    ],
)
def test_an_outage_is_decided_once(states: list[str], said: str | None) -> None:
    for state in states:
        found = db.outage(refusal(state))
        assert (found is None) if said is None else (found is not None and said in found), state
    assert [db.outage(error) is None for error in (ConnectionResetError(), TimeoutError(), db.WrongServer("x"))] == [
        False
    ] * 3
    assert [db.outage(error) for error in (ValueError(), KeyError("x"))] == [None, None]


def test_a_start_waits_for_what_ends_by_itself() -> None:
    waits = ["53300", "53100", "57P03", "57014", "08006", "25006"]
    assert [state for state in [*waits, "28P01", "28000", "3D000", "42501"] if ends_by_itself(refusal(state))] == waits
    assert [ends_by_itself(error) for error in (OSError(), db.WrongServer("x"), UnsafeDatabase("x"))] == [
        True,
        True,
        False,
    ]


def test_what_a_rebuilt_layer_says_is_known() -> None:
    texts = (
        "cache lookup failed for type 12345",
        "cache lookup failed for function 1",
        "cached plan must not change result type",
    )
    made = [asyncpg.PostgresError.new({"S": "ERROR", "C": "XX000", "M": text}) for text in texts]
    assert all(map(is_rebuilt, [*made, refusal("42883"), refusal("3F000")]))
    assert not any(map(is_rebuilt, [refusal("XX000"), refusal("22001"), OSError()]))


def test_an_outage_is_one_line_of_the_pool(caplog: pytest.LogCaptureFixture) -> None:
    log = logging.getLogger("asyncpg.pool")
    for error in (OSError("away"), ValueError("a fault")):
        log.warning("Failed to restore", exc_info=error)
    assert [(record.getMessage(), bool(record.exc_info)) for record in caplog.records] == [
        ("Failed to restore: OSError: away", False),
        ("Failed to restore", True),
    ]
