"""Memory: the peak of each process of a stack under each attack, beside the idle state of the same run.

idle      the stack without work
rules     200 rules of one tenant that readings breach by turns, 2,000 readings at a time
hanging   80 channels of one tenant whose receiver never answers, 20 notifications each
sockets   1,100 connections that send nothing, half a head or half a body
pieces    bodies in chunks of one byte, and heads of thousands of lines
bodies    eight bodies of 8 MB at a time
open      60 bodies of 8 MB that never end
readers   200 connections that ask for large answers and read none

A process counts with its resident memory, a backend of Postgres with its private part: the shared one is the buffer
cache. Attacks follow one another on the same stack, so a peak contains what the allocator kept of the ones before.

    pulse bench memory [--seconds N]
"""

import argparse
import asyncio
import contextlib
import os
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import psutil

from benchmarks import door, fairness, fairness_delivery
from benchmarks._bench import ACTOR, ROOT, as_role, conclude, free_ports, require_effect, running, scratch_database
from services.local.stack.roster import SERVICES

BACKEND = "largest backend"
SAMPLE_SECONDS = 0.05
READERS = 200
DOOR_ATTACKS = {"sockets": "connections", "pieces": "chunks", "bodies": "bodies", "open": "open"}
RULES, READINGS = 200, 2000
CHANNELS, JOBS = 80, 20

Peaks = dict[str, float]


@asynccontextmanager
async def stack_on(url: str) -> AsyncIterator[dict[str, tuple[int, int]]]:
    """Run every service on a database; yield port and process id of each."""
    ports = dict(zip(SERVICES, free_ports(len(SERVICES)), strict=True))
    processes: dict[str, asyncio.subprocess.Process] = {}
    with tempfile.TemporaryDirectory(prefix="pulse-bench-") as home:
        places = {"AUDIT_SPOOL_DIR": "spool", "AUDIT_KEY_FILE": "audit.key", "AUDIT_ANCHOR_DIR": "anchors"}
        environment = {
            **os.environ,
            **{f"PULSE_{name}": str(Path(home, place)) for name, place in places.items()},
            "PULSE_DATABASE_URL": as_role(url, "pulse_app"),
            "PULSE_OPS_DATABASE_URL": as_role(url, "pulse_ops"),
            "PULSE_EXPORTER_DATABASE_URL": as_role(url, "pulse_exporter"),
            "PULSE_ALLOW_PRIVATE_DESTINATIONS": "true",
            "PULSE_DELIVERY_TIMEOUT_SECONDS": "2",
        }
        try:
            for name, module in SERVICES.items():
                processes[name] = await asyncio.create_subprocess_exec(
                    sys.executable,
                    "-m",
                    module,
                    env={**environment, "PULSE_PORT": str(ports[name])},
                    cwd=ROOT,
                    stdout=asyncio.subprocess.DEVNULL,
                )
            for name, process in processes.items():
                await door.until_ready(name, ports[name], process)
            yield {name: (ports[name], process.pid) for name, process in processes.items()}
        finally:
            for process in processes.values():
                with contextlib.suppress(ProcessLookupError):
                    process.terminate()
            await asyncio.gather(*(process.wait() for process in processes.values()))


def megabytes(process: psutil.Process, *, private: bool = False) -> float:
    """Return the memory of a process; 0 if it has ended."""
    try:
        memory = process.memory_info()
    except psutil.NoSuchProcess:
        return 0.0
    return float(memory.rss - (memory.shared if private else 0)) / 2**20


async def watch(pids: dict[str, int], postmaster: psutil.Process, peaks: Peaks) -> None:
    """Keep the highest memory of each process and of any backend, until canceled."""
    processes = {name: psutil.Process(pid) for name, pid in pids.items()}
    while True:
        for name, process in processes.items():
            peaks[name] = max(peaks.get(name, 0.0), megabytes(process))
        backends = [megabytes(child, private=True) for child in postmaster.children()]
        peaks[BACKEND] = max([peaks.get(BACKEND, 0.0), *backends])
        await asyncio.sleep(SAMPLE_SECONDS)


async def hold_answers(port: int) -> None:
    """Ask for large answers on many connections and read none; a closed connection is opened anew."""

    async def hold() -> None:
        while True:
            with contextlib.suppress(OSError):
                reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
                try:
                    writer.write(b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n" * 50)
                    while not (reader.at_eof() or writer.is_closing()):
                        await asyncio.sleep(0.1)
                finally:
                    writer.transport.abort()

    await asyncio.gather(*(hold() for _ in range(READERS)))


@asynccontextmanager
async def under(name: str, url: str, port: int, token: str) -> AsyncIterator[None]:
    """Attack the stack; `idle` is no attack."""
    if name in DOOR_ATTACKS:
        async with door.attacking(DOOR_ATTACKS[name], port, token):
            yield
    elif name == "rules":
        async with running(fairness.attack(url, READINGS)):
            yield
    elif name == "hanging":
        owner = await asyncpg.connect(url, server_settings=ACTOR)
        await owner.execute(fairness_delivery.MAKE_JOBS, "evil", CHANNELS * JOBS, None)
        await owner.close()
        yield
    elif name == "readers":
        async with running(hold_answers(port)):
            yield
    else:
        yield


async def measure(url: str, seconds: float) -> dict[str, Peaks]:
    """Return the peaks of the idle state and of each attack."""
    hanging = fairness_delivery.Hanging()
    receiver = await asyncio.start_server(hanging.handle, "127.0.0.1", 0)
    owner = await asyncpg.connect(url, server_settings=ACTOR)
    postmaster = psutil.Process(await owner.fetchval("select pg_backend_pid()")).parent()
    assert postmaster is not None
    await fairness.prepare(owner, RULES)
    await fairness_delivery.add_channels(owner, "evil", CHANNELS, receiver.sockets[0].getsockname()[1])
    token = await door.add_device(url)
    found: dict[str, Peaks] = {}
    async with stack_on(url) as stack:
        for name in ("idle", "rules", "hanging", *DOOR_ATTACKS, "readers"):
            found[name] = {}
            watching = watch({name: pid for name, (_, pid) in stack.items()}, postmaster, found[name])
            async with under(name, url, stack["ui_iot"][0], token), running(watching):
                await asyncio.sleep(seconds)
    require_effect("readings evaluated", found=await owner.fetchval(_OPENED, "attacker"), expected=1)
    require_effect("notifications that hung", found=hanging.requests > 0, expected=1)
    await owner.close()
    receiver.close()
    return found


_OPENED = "select exists (select from alert_events where tenant_id = $1)::int"


def show(found: dict[str, Peaks]) -> None:
    """Print a line for each process."""
    print(f"{'MB':16}" + "".join(f"{name:>10}" for name in found) + f"{'ratio':>8}")
    for process, idle in found["idle"].items():
        peaks = [each[process] for each in found.values()]
        print(f"{process:16}" + "".join(f"{peak:10.0f}" for peak in peaks) + f"{max(peaks) / idle:8.2f}")


async def run(seconds: float) -> None:
    """Measure and print."""
    with scratch_database() as url:
        show(await measure(url, seconds))


def main() -> None:
    """Read the arguments and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10.0, help="length of each attack")
    conclude(run(parser.parse_args().seconds))


if __name__ == "__main__":
    main()
