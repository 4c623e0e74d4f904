"""Services as real processes on free loopback ports, stopped by their process id."""

import asyncio
import os
import signal
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import orjson

from tests.support.wait import until

ROOT = Path(__file__).parents[2]


def free_port() -> int:
    """Return a port on loopback that was free a moment ago."""
    return free_ports(["port"])["port"]


def free_ports(names: Sequence[str]) -> dict[str, int]:
    """Return a loopback port for each name. All ports differ and were free a moment ago."""
    with ExitStack() as held:
        probes = {name: held.enter_context(socket.create_server(("127.0.0.1", 0))) for name in names}
        return {name: int(probe.getsockname()[1]) for name, probe in probes.items()}


@dataclass(slots=True)
class Running:
    """A service's process."""

    module: str
    port: int
    process: asyncio.subprocess.Process
    lines: list[dict[str, Any]] = field(default_factory=list)

    @property
    def url(self) -> str:
        """Address at which it serves."""
        return f"http://127.0.0.1:{self.port}"

    async def get(self, path: str, **headers: str) -> httpx.Response:
        """Return the response to one GET."""
        async with httpx.AsyncClient(trust_env=False) as client:
            return await client.get(self.url + path, headers=headers)

    async def is_ready(self) -> bool:
        """Return whether /readyz answers 200."""
        if self.process.returncode is not None:
            raise AssertionError(f"{self.module} exited with {self.process.returncode}: {self.lines[-3:]}")
        try:
            return (await self.get("/readyz")).status_code == 200
        except httpx.TransportError:
            return False

    async def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal, wait for the end and return the exit status."""
        if self.process.returncode is None:
            self.process.send_signal(number)
        return await asyncio.wait_for(self.process.wait(), 15)


@asynccontextmanager
async def service(module: str, database_url: str, **settings: str) -> AsyncIterator[Running]:
    """Start `python -m module` with PULSE_<NAME> settings; kill it at the end if the test did not stop it."""
    port = int(settings.pop("port", "0")) or free_port()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PULSE_")}
    environment |= {"PULSE_DATABASE_URL": database_url, "PULSE_PORT": str(port), "PYTHONUNBUFFERED": "1"}
    kept = tempfile.TemporaryDirectory(prefix="pulse-audit-")
    environment |= {"PULSE_AUDIT_KEY_FILE": f"{kept.name}/signing.key", "PULSE_AUDIT_ANCHOR_DIR": kept.name}
    # The tests' server is fast, not durable. Each test has its own spool, so that tests share no events.
    environment |= {"PULSE_ALLOW_UNSAFE_DATABASE": "true", "PULSE_AUDIT_SPOOL_DIR": os.environ["PULSE_AUDIT_SPOOL_DIR"]}
    environment |= {f"PULSE_{name.upper()}": value for name, value in settings.items()}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        module,
        cwd=ROOT,
        env=environment,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        limit=1 << 20,
    )
    running = Running(module, port, process)
    reading = asyncio.create_task(_read_lines(running))
    try:
        yield running
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        await reading
        kept.cleanup()


@asynccontextmanager
async def ready_service(module: str, database_url: str, **settings: str) -> AsyncIterator[Running]:
    """Yield the same service once it is ready."""
    async with service(module, database_url, **settings) as running:
        await until(running.is_ready, seconds=30)
        yield running


async def _read_lines(running: Running) -> None:
    assert running.process.stdout is not None
    async for line in running.process.stdout:
        try:
            running.lines.append(orjson.loads(line))
        except orjson.JSONDecodeError:
            running.lines.append({"not_json": line.decode(errors="replace")})
