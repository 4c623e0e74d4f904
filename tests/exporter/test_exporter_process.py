"""The exporter as a process."""

import asyncio
import os
import signal
import socket
from collections.abc import Callable

import asyncpg
import httpx
import pytest
from prometheus_client import CollectorRegistry

from exporter.__main__ import run
from exporter.login import ExporterLoginSettings
from services.shared.door import Acceptor, Door, Limits
from services.shared.listening import bind
from services.shared.process import run_process
from services.shared.settings import ExporterSettings
from tests.support.processes import free_port, ready_service, service
from tests.support.scrape import as_owner
from tests.support.wait import until

RoleUrl = Callable[[str], str]


async def test_it_serves_health_and_stops_cleanly(conn: asyncpg.Connection, role_url: RoleUrl) -> None:
    """Ready with the database, /health like every process, exit 0 on SIGTERM even during a pass."""
    await as_owner(conn, "create view metrics.gate as select 1 as value, pg_advisory_lock(1)::text")
    await conn.execute("select pg_advisory_lock(1)")
    settings = {"exporter_database_url": role_url("pulse_exporter")}
    settings |= {"exporter_view_timeout_seconds": "60", "exporter_deadline_seconds": "60"}
    async with ready_service("exporter", "postgresql://nobody@127.0.0.1:1/nowhere", **settings) as exporter:
        health = (await exporter.get("/health")).json()
        assert (health["status"], health["service"], health["queues"]) == ("ok", "exporter", [])
        hanging = asyncio.create_task(exporter.get("/metrics"))
        waiting = "select exists (select from pg_locks where locktype = 'advisory' and not granted)"
        await until(lambda: conn.fetchval(waiting))
        assert await exporter.stop(signal.SIGTERM) == 0
        assert "pulse_exporter_up 0.0" in (await hanging).text
        assert [line["message"] for line in exporter.lines] == ["started", "stopped"]
    # The server notices that the client is gone, long before the view's time is over.
    sessions = "from pg_stat_activity where application_name = 'pulse-exporter' and datname = current_database()"
    await until(lambda: conn.fetchval(f"select not exists (select {sessions})"))


async def test_it_starts_without_a_database() -> None:
    """It is alive but not ready, and scrapes report it."""
    away = f"postgresql://pulse_exporter@127.0.0.1:{free_port()}/pulse"
    async with service("exporter", away) as exporter:
        await until(lambda: any(line.get("message") == "started" for line in exporter.lines))

        async def scrape() -> str:
            try:
                return (await exporter.get("/metrics")).text
            except httpx.TransportError:
                return ""

        assert "pulse_exporter_up 0.0" in await until(scrape)
        assert (await exporter.get("/livez")).status_code == 200
        assert (await exporter.get("/readyz")).status_code == 503
        assert await exporter.stop(signal.SIGINT) == 0


async def test_no_answer_waits_for_an_acknowledgement() -> None:
    """A connection that is accepted sends written bytes at once: Nagle's algorithm is off."""
    accepted: asyncio.Queue[int] = asyncio.Queue()

    async def look(arrival: socket.socket) -> None:
        transport, _ = await asyncio.get_running_loop().connect_accepted_socket(asyncio.Protocol, arrival)
        accepted.put_nowait(transport.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        transport.close()

    with bind("127.0.0.1", 0) as listening:
        acceptor = Acceptor(listening, Door(Limits(), CollectorRegistry()), look)
        _, client = await asyncio.open_connection(*listening.getsockname())
        assert await accepted.get() != 0
        client.close()
        acceptor.close()


def test_a_bad_setting_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit 2 and the variable's name, no traceback."""
    for name in [name for name in os.environ if name.startswith("PULSE_")]:
        monkeypatch.delenv(name)
    for variable, value, fault in (
        ("PULSE_EXPORTER_DATABASE_URL", None, "Field required"),
        ("PULSE_EXPORTER_MAX_ROWS", "0", "Input should be greater than or equal to 1"),
    ):
        if value is not None:
            monkeypatch.setenv("PULSE_DATABASE_URL", "postgresql://somewhere/pulse")
            monkeypatch.setenv(variable, value)
        with pytest.raises(SystemExit, match="2"):
            run_process(ExporterSettings, run)
        assert capsys.readouterr() == ("", f"exporter: {variable}: {fault}\n")


@pytest.mark.parametrize("login", ["pulse_app:x@db", "pulse_ops@db", "db/pulse?user=pulse_app", "acme_app@db"])
def test_the_login_of_the_services_is_refused(
    login: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An exporter without its own URL must not read metrics with the right to write."""
    monkeypatch.setenv("PULSE_DATABASE_URL", f"postgresql://{login}" + ("" if "?" in login else "/pulse"))
    if login.startswith("acme"):
        monkeypatch.setenv("PULSE_ROLE_PREFIX", "acme_")
    with pytest.raises(SystemExit, match="2"):
        ExporterLoginSettings.load()
    fault = capsys.readouterr().err
    assert "may do more than read metrics: set PULSE_EXPORTER_DATABASE_URL" in fault
    monkeypatch.setenv("PULSE_EXPORTER_DATABASE_URL", "postgresql://pulse_exporter@db/pulse")
    assert ExporterLoginSettings.load().database_url == "postgresql://pulse_exporter@db/pulse"
