"""The door: the latency of /livez and the memory of the API under attacks without a valid token.

reference    no attack
connections  1,100 connections that send nothing, half a head or half a body, against 1,024 descriptors
chunks       bodies in chunks of one byte, and heads of thousands of lines
bodies       eight bodies of 8 MB at a time, of nested empty arrays, numbers and escapes, from one device
open         60 bodies of 8 MB that never end, from one device

pulse is the worst of the attacks. Every probe must be answered with 200, and a reading be accepted after each attack;
otherwise the benchmark exits with status 1. The loop's p99 is the CPU time of the API's event loop during a probe: the
part of the wait that other programs on the machine do not change.

    pulse bench door [--seconds N]
"""

import argparse
import asyncio
import contextlib
import multiprocessing
import os
import resource
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from multiprocessing.synchronize import Event
from pathlib import Path

import asyncpg

from benchmarks._bench import ACTOR, ROOT, as_role, conclude, free_port, percentile, require_effect, scratch_database
from services.ui_iot.auth.device_tokens import DeviceTokens

DESCRIPTORS = 1024
PATH = "/ingest/v1/readings"
READING = b'{"device_id":"d1","metric":"heat","value":1}'
BODIES = (
    b"[" + (b"[" * 20 + b"]" * 20 + b",") * 200_000 + b"0]",
    b"[" + b"[]," * 2_700_000 + b"0]",
    b"[" + b"1," * 4_000_000 + b"0]",
    b'["' + b"\\u00e9" * 1_300_000 + b'"]',
    b" " * 8_000_000,
)

Attack = Callable[[int, str], Awaitable[None]]


def head(token: str, *lines: str) -> bytes:
    """Return the head of a request with readings."""
    start = (f"POST {PATH} HTTP/1.1", "Host: localhost", f"Authorization: Bearer {token}", *lines, "", "")
    return "\r\n".join(start).encode()


async def exchange(port: int, *pieces: bytes) -> bytes:
    """Send on a new connection and return the answer until the server closes it."""
    with contextlib.suppress(OSError):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
            return await reader.read()
        finally:
            writer.transport.abort()
    return b""


async def hold_connections(port: int, token: str) -> None:
    """Keep connections open without a request; closed ones are opened again."""
    starts = (b"", b"GET /livez HTTP/1.1\r\nHost: localhost", head(token, "Content-Length: 1000") + b"[")

    async def hold(start: bytes) -> None:
        while True:
            await exchange(port, start)

    await asyncio.gather(*(hold(starts[number % 3]) for number in range(1100)))


async def send_small_pieces(port: int, token: str) -> None:
    """Send bodies that are slow to parse for their size, without a valid token."""
    chunked = head(token + "x", "Transfer-Encoding: chunked") + b"1\r\nx\r\n" * 40_000
    lines = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n" + b"a:b\r\n" * 10_000 + b"\r\n"
    while True:
        await asyncio.gather(*(exchange(port, data) for data in (chunked, lines) * 2))


async def send_bodies(port: int, token: str) -> None:
    """Send eight hostile bodies at a time."""

    async def send(number: int) -> None:
        while True:
            body = BODIES[number % len(BODIES)]
            await exchange(port, head(token, f"Content-Length: {len(body)}", "Connection: close"), body)

    await asyncio.gather(*(send(number) for number in range(8)))


async def hold_bodies(port: int, token: str) -> None:
    """Send long bodies without their end."""
    start = head(token, "Content-Length: 8000000") + b" " * 7_999_000

    async def hold() -> None:
        while True:
            await exchange(port, start)

    await asyncio.gather(*(hold() for _ in range(60)))


ATTACKS: dict[str, Attack] = {
    "connections": hold_connections,
    "chunks": send_small_pieces,
    "bodies": send_bodies,
    "open": hold_bodies,
}


def attack(name: str, port: int, token: str, started: Event) -> None:
    """Run an attack in a separate process until it is terminated."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (4096, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    started.set()
    asyncio.run(ATTACKS[name](port, token))  # type: ignore[arg-type]  # all are coroutine functions


@asynccontextmanager
async def attacking(name: str, port: int, token: str) -> AsyncIterator[None]:
    """Attack from another process. The caller starts one second later."""
    context = multiprocessing.get_context("spawn")
    started = context.Event()
    attacker = context.Process(target=attack, args=(name, port, token, started))
    attacker.start()
    try:
        while not await asyncio.to_thread(started.wait, 0.2):
            require_effect("a running attacker", found=attacker.is_alive(), expected=1)
        await asyncio.sleep(1)
        yield
    finally:
        attacker.terminate()
        attacker.join()


@dataclass(slots=True)
class Waits:
    """Seconds that each probe took, and seconds of CPU time that the event loop used meanwhile."""

    took: list[float] = field(default_factory=list)
    loop: list[float] = field(default_factory=list)

    @property
    def p99(self) -> float:
        """Return the wait that 99 % of the probes did not exceed."""
        return percentile(self.took, 0.99)


def loop_seconds(pid: int) -> float:
    """Return the CPU time of a process's main thread."""
    return int(Path(f"/proc/{pid}/task/{pid}/schedstat").read_text().split()[0]) / 1e9


async def probe(port: int, pid: int, seconds: float) -> Waits:
    """Ask for /livez on new connections, 50 times a second."""
    waits = Waits()
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        started, busy = time.perf_counter(), loop_seconds(pid)
        answer = await exchange(port, b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        waits.took.append(time.perf_counter() - started)
        waits.loop.append(loop_seconds(pid) - busy)
        require_effect("probes answered with 200", found=answer.startswith(b"HTTP/1.1 200"), expected=1)
        await asyncio.sleep(0.02)
    return waits


async def add_device(url: str) -> str:
    """Make a device and return its token."""
    token, digest = DeviceTokens.make("bench")
    connection = await asyncpg.connect(url, server_settings=ACTOR)
    try:
        await connection.execute(
            "insert into tenants (tenant_id, name) values ('bench', 'bench') on conflict do nothing"
        )
        await connection.execute(
            "insert into devices (tenant_id, device_id, name, token_hash) values ('bench', 'd1', 'd1', $1)", digest
        )
    finally:
        await connection.close()
    return token


async def until_ready(name: str, port: int, process: asyncio.subprocess.Process) -> None:
    """Wait until a service is ready. Raises MeasurementVoid if its process has ended."""
    while not (await exchange(port, b"GET /readyz HTTP/1.0\r\n\r\n")).startswith(b"HTTP/1.1 200"):
        require_effect(f"a running {name}", found=process.returncode is None, expected=1)
        await asyncio.sleep(0.1)


@asynccontextmanager
async def running_api(url: str) -> AsyncIterator[tuple[int, int]]:
    """Run the API in a process with few descriptors and yield its port and process id."""
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="pulse-bench-") as home:
        environment = {
            **os.environ,
            "PULSE_DATABASE_URL": as_role(url, "pulse_app"),
            "PULSE_PORT": str(port),
            "PULSE_AUDIT_SPOOL_DIR": str(Path(home, "spool")),
        }
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "services.ui_iot",
            env=environment,
            cwd=ROOT,
            stdout=asyncio.subprocess.DEVNULL,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (DESCRIPTORS, DESCRIPTORS)),
        )
        try:
            await until_ready("ui_iot", port, process)
            yield port, process.pid
        finally:
            process.terminate()
            await process.wait()


def peak_megabytes(pid: int) -> float:
    """Return the peak memory of a process."""
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def show(name: str, waits: Waits, megabytes: float) -> None:
    """Print one line."""
    p50, loop = percentile(waits.took, 0.5) * 1000, percentile(waits.loop, 0.99) * 1000
    print(
        f"{name:12} /livez p50 {p50:8.1f} ms   p99 {waits.p99 * 1000:8.1f} ms   loop p99 {loop:6.1f} ms"
        f"   peak {megabytes:6.0f} MB   {len(waits.took)} probes"
    )


async def run(seconds: float) -> None:
    """Measure without an attack, then during each."""
    with scratch_database() as url:
        token = await add_device(url)
        async with running_api(url) as (port, pid):
            quiet = await probe(port, pid, seconds)
            show("reference", quiet, peak_megabytes(pid))
            worst: Waits | None = None
            for name in ATTACKS:
                async with attacking(name, port, token):
                    waits = await probe(port, pid, seconds)
                show(name, waits, peak_megabytes(pid))
                worst = waits if worst is None else max(worst, waits, key=lambda each: each.p99)
                content = head(token, f"Content-Length: {len(READING)}", "Connection: close")
                answer = await exchange(port, content, READING)
                require_effect("readings accepted after an attack", found=b'"accepted":1' in answer, expected=1)
            assert worst is not None
            show("pulse", worst, peak_megabytes(pid))
            print(f"ratio        {worst.p99 / quiet.p99:8.1f} x the reference's p99")


def main() -> None:
    """Read the arguments and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10.0, help="length of each attack")
    conclude(run(parser.parse_args().seconds))


if __name__ == "__main__":
    main()
