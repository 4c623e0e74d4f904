"""Access to /metrics: its own port, its token, and its cost for other requests."""

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.core import Metric
from prometheus_client.registry import Collector
from rich.console import Console
from starlette.applications import Starlette
from starlette.types import ASGIApp

from exporter.app import create_app
from exporter.collector import ViewCollector
from services.cli.errors import CommandFailed
from services.cli.home import Home
from services.local.stack.roster import Ports
from services.local.stack.screen import Screen
from services.local.stack.stack import Options, run_stack
from services.shared.metrics import ProcessMetrics
from services.shared.server import Process, serve_process, status_routes
from services.shared.settings import EvaluatorSettings, ExporterSettings, Settings
from tests.support.processes import free_port
from tests.support.wait import until

NOWHERE = "postgresql://nobody@127.0.0.1:1/nowhere"
TOKEN = "correct-horse-battery-staple"


def worker_app(process: Process) -> ASGIApp:
    """Return what a worker serves."""
    return Starlette(routes=status_routes(process))


def exporter_app(process: Process) -> ASGIApp:
    """Return what the exporter serves."""
    assert isinstance(process.settings, ExporterSettings)
    return create_app(process, ViewCollector(process.settings, process), longest_seconds=1)


@asynccontextmanager
async def serving(settings: Settings, make_app: Callable[[Process], ASGIApp]) -> AsyncIterator[httpx.AsyncClient]:
    """Yield a process's server, and a client that has found it."""
    process = Process(settings=settings, metrics=ProcessMetrics(settings.service))
    stop = asyncio.Event()
    server = asyncio.create_task(serve_process(process, make_app(process), stop=stop))
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{settings.port}", trust_env=False) as client:

            async def lives() -> bool:
                try:
                    return (await client.get("/livez")).status_code == 200
                except httpx.TransportError:
                    return server.done()

            await until(lives)
            yield client
    finally:
        stop.set()
        await server


@pytest.mark.parametrize(
    ("settings_class", "make_app", "line"),
    [
        (EvaluatorSettings, worker_app, "process_cpu_seconds_total"),
        (ExporterSettings, exporter_app, "pulse_exporter_up 0.0"),
    ],
)
async def test_metrics_have_a_port_and_a_token_of_their_own(
    settings_class: type[Settings],
    make_app: Callable[[Process], ASGIApp],
    line: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The metrics port serves only /metrics, the other port never does, and a token is required."""
    caplog.set_level(logging.DEBUG)
    ports: dict[str, Any] = {"port": free_port(), "metrics_port": free_port(), "metrics_token": TOKEN}
    async with serving(settings_class(database_url=NOWHERE, **ports), make_app) as client:
        there = f"http://127.0.0.1:{ports['metrics_port']}"
        good = {"authorization": f"Bearer {TOKEN}"}
        # The Host header, which the client sets, has no influence.
        for host in (f"127.0.0.1:{ports['port']}", f"127.0.0.1:{ports['metrics_port']}"):
            assert (await client.get("/metrics", headers={**good, "host": host})).status_code == 404
            assert line in (await client.get(f"{there}/metrics", headers={**good, "host": host})).text
        for path in ("/livez", "/readyz", "/health", "/metrics/"):
            assert (await client.get(there + path, headers=good)).status_code == 404, path
        assert (await client.get(f"{there}/metrics", headers={"authorization": f"bearer  {TOKEN}"})).status_code == 200
        wrong = [f"Bearer {TOKEN[:-1]}", f"Bearer {TOKEN}x", f"Basic {TOKEN}", TOKEN, "Bearer", b"Bearer \xff\xfe"]
        for header in [None, *wrong]:
            headers: Any = {} if header is None else {"authorization": header}
            refused = await client.get(f"{there}/metrics", headers=headers)
            assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer"), header
            assert line not in refused.text
    assert TOKEN[:-1] not in caplog.text


class Slow(Collector):
    """A collector that blocks until the event loop has done other work."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.was_held_up = True

    def collect(self) -> Iterator[Metric]:
        """Return nothing."""
        went_on = threading.Event()
        self._loop.call_soon_threadsafe(went_on.set)
        self.was_held_up = not went_on.wait(2)
        return iter(())


async def test_a_scrape_holds_up_no_request() -> None:
    """A slow rendering of all series delays no request."""
    process = Process(settings=EvaluatorSettings(database_url=NOWHERE), metrics=ProcessMetrics("evaluator_iot"))
    slow = Slow()
    process.metrics.registry.register(slow)
    transport = httpx.ASGITransport(worker_app(process))
    async with httpx.AsyncClient(transport=transport, base_url="http://worker.test") as client:
        assert (await client.get("/metrics")).status_code == 200
    assert not slow.was_held_up


async def test_without_a_port_of_its_own_the_token_guards_metrics_alone() -> None:
    """Probes need no token. Whitespace around a token from a file is ignored."""
    settings = EvaluatorSettings(database_url=NOWHERE, port=free_port(), metrics_token=f" {TOKEN}\n")  # type: ignore[arg-type]
    async with serving(settings, worker_app) as client:
        assert (await client.get("/metrics")).status_code == 401
        answer = await client.get("/metrics", headers={"authorization": f"Bearer {TOKEN}"})
        assert "pulse_processing_duration_seconds" in answer.text


def test_bad_settings_are_refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A guessable token and a taken port are refused, without repeating the token."""
    for name, value in (("DATABASE_URL", NOWHERE), ("METRICS_PORT", "8082"), ("METRICS_TOKEN", "hunter2" + " " * 9)):
        monkeypatch.setenv(f"PULSE_{name}", value)
    with pytest.raises(SystemExit):
        EvaluatorSettings.load()
    said = capsys.readouterr().err
    assert "PULSE_METRICS_PORT: must be another port than PULSE_PORT" in said
    assert "PULSE_METRICS_TOKEN: " in said
    assert "hunter2" not in said
    assert TOKEN not in repr(EvaluatorSettings(database_url=NOWHERE, metrics_token=TOKEN, metrics_port=None))  # type: ignore[arg-type]


def test_the_stack_refuses_a_port_for_six_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ignoring the port would leave /metrics open unexpectedly."""
    monkeypatch.setenv("PULSE_METRICS_PORT", "9100")
    options = Options(Ports(8080), demo=False, devices=1, rate=1.0)
    with pytest.raises(CommandFailed, match="PULSE_METRICS_PORT names one port and the stack has six processes"):
        run_stack(Home(tmp_path), options, Screen(Console()))
    assert list(tmp_path.iterdir()) == []
