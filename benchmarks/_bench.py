"""Shared parts of benchmarks: a scratch database (durable, on disk, migrated, removed afterwards) and the output."""

import asyncio
import io
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
from alembic import command
from alembic.config import Config

from migrations.role_names import RoleNames
from services.local.postgres.server import EmbeddedPostgres

ROOT = Path(__file__).parents[1]
ACTOR = {"pulse.actor_id": "benchmark"}
"""Settings of a session that may change tracked tables."""


def free_ports(count: int) -> list[int]:
    """Return different ports on loopback that were free a moment ago."""
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [probe.getsockname()[1] for probe in probes]


def free_port() -> int:
    """Return a port on loopback that was free a moment ago."""
    return free_ports(1)[0]


@contextmanager
def scratch_database() -> Iterator[str]:
    """Yield the superuser's URL of a fresh database on an embedded server or on that of PULSE_BENCH_URL.

    PULSE_BENCH_URL must name an empty database; it is left migrated and filled.
    """
    given = os.environ.get("PULSE_BENCH_URL")
    if given:
        _migrate(given)
        yield given
        return
    with tempfile.TemporaryDirectory(prefix="pulse-bench-") as home, EmbeddedPostgres(Path(home)) as server:
        url = server.url()
        _migrate(url)
        yield url


def as_role(url: str, role: str) -> str:
    """Return the URL of the same database for another role of this installation, on a server that needs no password."""
    parts = urlsplit(url)
    return url.replace(parts.netloc, f"{RoleNames.find().rename(role)}@", 1) if parts.username else url


def _migrate(url: str) -> None:
    config = Config(ROOT / "alembic.ini", stdout=io.StringIO())
    config.attributes["url"] = url
    command.upgrade(config, "head")


def percentile(values: list[float], share: float) -> float:
    """Return the value below which that share of the sorted values lies."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


class MeasurementVoid(Exception):
    """The measured work did not have its effect, so its time has no meaning."""


def require_effect(what: str, *, found: float, expected: float) -> None:
    """Raise MeasurementVoid unless the measured work had its effect."""
    if found != expected:
        raise MeasurementVoid(f"{what}: expected {expected:,.0f}, found {found:,.0f}")


@contextmanager
def running_services(url: str, *modules: str, **settings: str) -> Iterator[None]:
    """Run services on a database, and stop them by their process ids at the end. settings: their variables."""
    processes = []
    try:
        for module in modules:
            environment = {
                **os.environ,
                "PULSE_DATABASE_URL": as_role(url, "pulse_app"),
                "PULSE_PORT": str(free_port()),
                "PULSE_ALLOW_PRIVATE_DESTINATIONS": "true",
                **settings,
            }
            processes.append(
                subprocess.Popen([sys.executable, "-m", module], cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)
            )
        yield
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait(15)


async def until_listening(connection: asyncpg.Connection, name: str) -> None:
    """Wait until the service of this name listens for notifications."""
    while not await connection.fetchval(
        "select exists (select from pg_stat_activity where application_name = $1)", f"pulse-{name}-listen"
    ):
        await asyncio.sleep(0.05)


@asynccontextmanager
async def running(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Run work beside a measurement and cancel it at the end. Raises its error if it failed before."""
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])
        if not task.cancelled():
            task.result()


def conclude(benchmark: Coroutine[Any, Any, None]) -> None:
    """Run a benchmark; exit with status 1 and one line if a measurement is void."""
    try:
        asyncio.run(benchmark)
    except MeasurementVoid as void:
        sys.exit(f"bench: the measurement is void: {void}")


def print_comparison(rates: dict[str, list[float]]) -> None:
    """Print the rates of "reference" and "pulse", measured by turns, and the median of their ratios."""
    for name, values in rates.items():
        rounds = [round(value) for value in values]
        print(f"{name:10} {sorted(values)[len(values) // 2]:>10,.0f} readings/s   of {rounds}")
    ratios = sorted(mine / theirs for mine, theirs in zip(rates["pulse"], rates["reference"], strict=True))
    print(f"ratio      {ratios[len(ratios) // 2]:>10.2f} x the reference (median of {len(ratios)} rounds)")
