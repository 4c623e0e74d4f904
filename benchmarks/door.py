"""The door: how long /livez takes, and how much memory the API takes, while strangers try to stop it.

reference    no attack
connections  1,100 connections that send nothing, half a head or half a body, against 1,024 descriptors
chunks       bodies in chunks of one byte, and heads of thousands of lines
bodies       eight bodies of 8 MB at a time, of nested empty arrays, numbers and escapes, from one device
open         60 bodies of 8 MB that never end, from one device

pulse is the worst of the attacks. Every probe must be answered with 200, and a reading be accepted after each attack;
otherwise the benchmark exits with status 1.

    pulse bench door [--seconds N]
"""

import argparse
import asyncio
import contextlib
import multiprocessing
import os
import resource
import socket
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg

from benchmarks._bench import ACTOR, ROOT, as_role, conclude, percentile, require_effect, scratch_database
from services.ui_iot.auth.device_tokens import new_device_token

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
    """The head of a request with readings."""
    start = (f"POST {PATH} HTTP/1.1", "Host: localhost", f"Authorization: Bearer {token}", *lines, "", "")
    return "\r\n".join(start).encode()


async def exchange(port: int, *pieces: bytes) -> bytes:
    """Send on a new connection; return what came back until it was closed."""
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
    """Open connections and leave them; those that were closed are opened anew."""
    starts = (b"", b"GET /livez HTTP/1.1\r\nHost: localhost", head(token, "Content-Length: 1000") + b"[")

    async def hold(start: bytes) -> None:
        while True:
            await exchange(port, start)

    await asyncio.gather(*(hold(starts[number % 3]) for number in range(1100)))


async def send_small_pieces(port: int, token: str) -> None:
    """Send what takes long to be read for its size, without a valid token."""
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
    """Send all but the end of long bodies."""
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


def attack(name: str, port: int, token: str) -> None:
    """The life of an attacker's process."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (4096, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    asyncio.run(ATTACKS[name](port, token))  # type: ignore[arg-type]  # coroutine functions, all of them


async def probe(port: int, seconds: float) -> list[float]:
    """Ask for /livez on new connections, 50 times a second; return the seconds that each took."""
    took: list[float] = []
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        started = time.perf_counter()
        answer = await exchange(port, b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        took.append(time.perf_counter() - started)
        require_effect("probes answered with 200", found=answer.startswith(b"HTTP/1.1 200"), expected=1)
        await asyncio.sleep(0.02)
    return took


async def add_device(url: str) -> str:
    """Make a device that may report; return its token."""
    token, digest = new_device_token("bench")
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


@asynccontextmanager
async def running_api(url: str) -> AsyncIterator[tuple[int, int]]:
    """The API in a process with few descriptors; its port and process id."""
    with socket.socket() as free, tempfile.TemporaryDirectory(prefix="pulse-bench-") as home:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
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
            while not (await exchange(port, b"GET /readyz HTTP/1.0\r\n\r\n")).startswith(b"HTTP/1.1 200"):
                require_effect("a running API", found=process.returncode is None, expected=1)
                await asyncio.sleep(0.1)
            yield port, process.pid
        finally:
            process.terminate()
            await process.wait()


def peak_megabytes(pid: int) -> float:
    """Most memory that a process has had."""
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def show(name: str, took: list[float], megabytes: float) -> None:
    """Print one line."""
    p50, p99 = (percentile(took, share) * 1000 for share in (0.5, 0.99))
    print(f"{name:12} /livez p50 {p50:8.1f} ms   p99 {p99:8.1f} ms   peak {megabytes:6.0f} MB   {len(took)} probes")


async def run(seconds: float) -> None:
    """Measure without an attack, then during each."""
    with scratch_database() as url:
        token = await add_device(url)
        async with running_api(url) as (port, pid):
            quiet = await probe(port, seconds)
            show("reference", quiet, peak_megabytes(pid))
            worst: list[float] = []
            for name in ATTACKS:
                attacker = multiprocessing.get_context("spawn").Process(target=attack, args=(name, port, token))
                attacker.start()
                try:
                    took = await probe(port, seconds)
                finally:
                    attacker.terminate()
                    attacker.join()
                show(name, took, peak_megabytes(pid))
                worst = max(worst, took, key=lambda values: percentile(values, 0.99) if values else 0.0)
                content = head(token, f"Content-Length: {len(READING)}", "Connection: close")
                answer = await exchange(port, content, READING)
                require_effect("readings accepted after an attack", found=b'"accepted":1' in answer, expected=1)
            show("pulse", worst, peak_megabytes(pid))
            print(f"ratio        {percentile(worst, 0.99) / percentile(quiet, 0.99):8.1f} x the reference's p99")


def main() -> None:
    """Read the arguments and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10.0, help="length of each attack")
    conclude(run(parser.parse_args().seconds))


if __name__ == "__main__":
    main()
