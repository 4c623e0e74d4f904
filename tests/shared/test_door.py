"""Clients cannot hold a server's connections, descriptors or event loop for longer than the settings allow."""

import asyncio
import contextlib
import resource
import socket
import ssl
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path
from typing import Self

import orjson
import pytest
from prometheus_client import CollectorRegistry
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from services.shared.door import Limits
from services.shared.door.framing import MOST_HEADER_LINES
from services.shared.door.limits import RESERVE, peer_of
from services.shared.listening import bind, serve_on
from services.shared.metrics import ProcessMetrics
from services.shared.server import Process, serve_process, status_routes
from services.shared.settings import DispatcherSettings
from services.shared.web import ServerTls
from services.shared.web_settings import HttpSettings
from tests.support.certificates import PrivateCa
from tests.support.http_app import Gates
from tests.support.migrator import ROOT
from tests.support.processes import free_port
from tests.support.raw_http import RawConnection, status_of
from tests.support.wait import until

PARTIAL_HEAD = b"GET /quick HTTP/1.1\r\nHost: api"
PARTIAL_BODY = b"POST /upload HTTP/1.1\r\nHost: api\r\nContent-Length: 1000\r\n\r\nabc"
# Long enough that no test reaches it.
NEVER = 3600.0
PATIENT = Limits(head_seconds=NEVER, body_seconds=NEVER, idle_seconds=3600, send_seconds=NEVER)
PROXIES = (ip_network("127.0.0.9/32"),)


class Server:
    """A server with its limits, its metrics and a route of every kind."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.registry = CollectorRegistry()
        self.gates = Gates()
        self.uploads: list[str] = []
        self.listening = bind("127.0.0.1", 0)
        self.port: int = self.listening.getsockname()[1]

    def app(self) -> Starlette:
        """Answers at once, when a gate opens, after the whole body, or without end."""

        async def quick(_request: Request) -> Response:
            return PlainTextResponse("ok")

        async def slow(request: Request) -> Response:
            await self.gates.wait(request.path_params["key"])
            return PlainTextResponse("late")

        async def upload(request: Request) -> Response:
            try:
                return PlainTextResponse(str(len(await request.body())))
            except Exception as error:
                self.uploads.append(type(error).__name__)
                raise

        async def endless(_request: Request) -> Response:
            async def chunks() -> AsyncIterator[bytes]:
                while True:
                    yield b"x" * 65536
                    await asyncio.sleep(0)

            return StreamingResponse(chunks())

        routes = [
            Route("/quick", quick),
            Route("/livez", quick),
            Route("/slow/{key}", slow),
            Route("/upload", upload, methods=["POST"]),
            Route("/endless", endless),
        ]
        return Starlette(routes=routes)

    def closed(self, reason: str) -> float:
        """Connections closed for a reason."""
        return self.registry.get_sample_value("pulse_http_connections_closed_total", {"reason": reason}) or 0.0

    def open(self) -> float:
        """Open connections."""
        return self.registry.get_sample_value("pulse_http_connections_open") or 0.0

    async def get(self, path: str, *, address: str = "127.0.0.1") -> bytes:
        """Return the answer to a request on a new connection."""
        async with self.client(address=address) as client:
            client.request("GET", path)
            return await client.read_all()

    def client(self, *, address: str = "127.0.0.1") -> "Client":
        """Return a client that has not connected."""
        return Client(self.port, address)


class Client(RawConnection):
    """A connection from one of loopback's addresses."""

    def __init__(self, port: int, address: str) -> None:
        super().__init__(port)
        self._address = address

    def pause_reading(self) -> None:
        """Let the incoming data pile up on the other side."""
        self._writer.transport.pause_reading()  # type: ignore[attr-defined]

    async def sent(self) -> None:
        """Return when the kernel has taken the written data."""
        await until(lambda: not self._writer.transport.get_write_buffer_size())

    async def __aenter__(self) -> Self:
        self._reader, self._writer = await asyncio.open_connection(
            "127.0.0.1", self._port, local_addr=(self._address, 0)
        )
        return self


@asynccontextmanager
async def serving(limits: Limits, *, tls: ServerTls | None = None) -> AsyncIterator[Server]:
    """Yield a running server."""
    server, stop = Server(limits), asyncio.Event()
    running = asyncio.create_task(
        serve_on([server.listening], server.app(), stop=stop, limits=limits, registry=server.registry, tls=tls)
    )

    async def listens() -> bool:
        try:
            async with server.client():
                return True
        except ConnectionRefusedError:
            return False

    try:
        await until(listens)
        await until(lambda: server.open() == 0)
        yield server
    finally:
        stop.set()
        await running


@asynccontextmanager
async def clients(
    server: Server, count: int, data: bytes = b"", *, address: str = "127.0.0.1"
) -> AsyncIterator[list[Client]]:
    """Yield open connections that have all sent the same data."""
    opened = [server.client(address=address) for _ in range(count)]
    try:
        for client in opened:
            await client.__aenter__()
            client.write(data)
        yield opened
    finally:
        for client in opened:
            client.abort()


async def test_clients_that_are_late_are_closed() -> None:
    """An idle socket, a partial head, an unfinished body, an unused connection, an answer that is not read."""
    limits = Limits(head_seconds=0.05, body_seconds=0.05, body_bytes_per_second=1e9, idle_seconds=1, send_seconds=0.05)
    async with serving(limits) as server, server.client() as reader, server.client() as kept:
        reader.request("GET", "/endless")
        reader.pause_reading()
        kept.write(b"GET /quick HTTP/1.1\r\nHost: a\r\n\r\n")
        async with server.client() as idle, server.client() as head, server.client() as body:
            head.write(PARTIAL_HEAD)
            body.write(PARTIAL_BODY)
            assert await idle.read_all() == b""
            for late in (await head.read_all(), await body.read_all()):
                assert status_of(late) == 408
                problem = orjson.loads(late.partition(b"\r\n\r\n")[2])
                assert (problem["status"], problem["type"]) == (408, "urn:pulse:problem:request-timeout")
                assert b"application/problem+json" in late
                assert problem["trace_id"].encode() in late.partition(b"\r\n\r\n")[0]
        assert status_of(await kept.read_all()) == 200
        await until(lambda: server.open() == 0)
        assert server.uploads == ["ClientDisconnect"]
        assert {reason: server.closed(reason) for reason in ("head", "body", "send")} == {
            "head": 2,
            "body": 1,
            "send": 1,
        }


async def test_a_body_that_keeps_its_rate_is_not_late() -> None:
    """Each byte moves the deadline, so a long body on a slow line arrives."""
    limits = Limits(head_seconds=0.05, body_seconds=0.05, body_bytes_per_second=0.001)
    async with serving(limits) as server, server.client() as client, server.client() as late:
        client.write(b"POST /upload HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 4\r\n\r\nab")
        await until(lambda: server.open() == 2)
        late.write(PARTIAL_HEAD)
        # The check that finds this one late finds the other one too old.
        assert status_of(await late.read_all()) == 408
        client.write(b"cd")
        assert status_of(await client.read_all()) == 200


async def test_a_new_connection_takes_the_place_of_the_one_that_waited_longest() -> None:
    """While other clients hold every place, a client that sends its request is answered, and running requests stay."""
    limits = replace(PATIENT, connections=12, per_address=12)
    async with serving(limits) as server, server.client() as working:
        working.request("GET", "/slow/a")
        for data in (b"", PARTIAL_HEAD, PARTIAL_BODY):
            async with clients(server, 40, data) as held:
                await until(lambda: server.open() == 12)
                assert status_of(await server.get("/quick")) == 200
                assert await held[0].read_all() == b""
        server.gates.open("a")
        assert status_of(await working.read_all()) == 200
        assert server.closed("refused") == 0


async def test_probes_have_places_of_their_own() -> None:
    """When running requests hold all places, probes are answered, other requests get 503, and the rest is closed."""
    limits = replace(PATIENT, connections=8, per_address=8)
    async with serving(limits) as server:
        async with clients(server, 8, b"GET /slow/a HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n") as working:
            await until(lambda: server.open() == 8)
            async with clients(server, RESERVE + 5):
                assert status_of(await server.get("/livez")) == 200
                refused = await server.get("/quick")
            assert status_of(refused) == 503
            assert b"retry-after: 2" in refused
            assert b"PULSE_HTTP_MAX_CONNECTIONS" in refused
            assert server.closed("busy") == 1
            server.gates.open("a")
            assert {status_of(await client.read_all()) for client in working} == {200}
        assert status_of(await server.get("/quick")) == 200


async def test_one_address_leaves_room_for_others() -> None:
    """An address over its limit loses its own connections only; a trusted proxy has no such limit."""
    limits = replace(PATIENT, connections=30, per_address=10, trusted=PROXIES)
    async with (
        serving(limits) as server,
        clients(server, 5, address="127.0.0.2") as others,
        clients(server, 40, address="127.0.0.3"),
    ):
        await until(lambda: server.open() == 15)
        assert status_of(await server.get("/quick", address="127.0.0.3")) == 200
        async with clients(server, 15, address="127.0.0.9"):
            await until(lambda: server.open() == 5 + 9 + 15)
        for other in others:
            other.request("GET", "/quick")
            assert status_of(await other.read_all()) == 200


def connect_all(port: int, count: int, data: bytes, *, address: str = "127.0.0.1") -> list[socket.socket]:
    """Connect and send without giving the server, which runs in the same event loop, a chance to accept."""
    opened = [socket.create_connection(("127.0.0.1", port), source_address=(address, 0)) for _ in range(count)]
    for one in opened:
        one.sendall(data)
        one.setblocking(False)
    return opened


async def receive_all(opened: list[socket.socket]) -> list[bytes]:
    """Return what each connection received until it was closed."""

    async def receive(one: socket.socket) -> bytes:
        got = bytearray()
        with one, contextlib.suppress(ConnectionError):
            while piece := await asyncio.get_running_loop().sock_recv(one, 65536):
                got += piece
        return bytes(got)

    return await asyncio.gather(*map(receive, opened))


QUICK = b"GET /quick HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"


@pytest.mark.parametrize("data", [b"", PARTIAL_HEAD, PARTIAL_BODY])
async def test_a_probe_passes_the_queue(data: bytes) -> None:
    """It is answered before most of the 300 connections ahead have a protocol."""
    async with serving(replace(PATIENT, lobby=400)) as server:
        flood = connect_all(server.port, 300, data)
        [probe] = connect_all(server.port, 1, QUICK.replace(b"quick", b"livez"))
        [answer] = await receive_all([probe])
        assert status_of(answer) == 200
        assert server.open() < 150
        await until(lambda: server.open() == 300)
        for one in flood:
            one.close()


async def test_a_full_lobby_keeps_whole_requests() -> None:
    """Connections without a whole head lose their places first."""
    async with serving(replace(PATIENT, lobby=40)) as server:
        silent = connect_all(server.port, 200, b"")
        asking = connect_all(server.port, 30, QUICK)
        assert {status_of(answer) for answer in await receive_all(asking)} == {200}
        assert server.closed("crowded") > 0
        assert server.closed("refused") == 0
        for one in silent:
            one.close()


async def test_requests_of_one_address_leave_room_in_the_lobby() -> None:
    """Requests beyond half of the lobby get 503 at once; those of another address are all answered."""
    async with serving(replace(PATIENT, lobby=40)) as server:
        many = connect_all(server.port, 200, QUICK, address="127.0.0.2")
        few = connect_all(server.port, 10, QUICK, address="127.0.0.3")
        answers, others = await asyncio.gather(receive_all(many), receive_all(few))
        assert {status_of(answer) for answer in others} == {200}
        refused = [answer for answer in answers if status_of(answer) == 503]
        assert len(refused) == server.closed("refused") > 0
        assert all(b"retry-after: 2" in answer and b"PULSE_HTTP_MAX_CONNECTIONS" in answer for answer in refused)
        assert {status_of(answer) for answer in answers} == {200, 503}


async def test_requests_of_a_proxy_wait_when_the_lobby_is_full() -> None:
    """A trusted proxy speaks for many clients, so none of its requests is refused for their number."""
    async with serving(replace(PATIENT, lobby=40, trusted=PROXIES)) as server:
        many = connect_all(server.port, 200, QUICK, address="127.0.0.9")
        assert {status_of(answer) for answer in await receive_all(many)} == {200}
        assert server.closed("refused") == 0


async def test_a_stalled_tls_handshake_has_the_deadline_of_a_head(tmp_path: Path) -> None:
    """A client that sends nothing, or half of a handshake, counts as a connection and is cut."""
    ca = PrivateCa(tmp_path)
    pem = ca.certificate("localhost", "127.0.0.1")
    limits = replace(PATIENT, connections=8, per_address=8, head_seconds=0.5)
    async with serving(limits, tls=ServerTls(pem, pem)) as server:
        stalled = connect_all(server.port, 4, b"") + connect_all(server.port, 4, b"\x16\x03\x01\x02\x00\x01")
        await until(lambda: server.open() == 8)
        await receive_all(stalled)
        await until(lambda: server.open() == 0)
        assert server.closed("head") == 8


async def test_a_stalled_tls_handshake_gives_its_place_to_a_new_connection(tmp_path: Path) -> None:
    """A handshake that waits for its client is closed for a new connection when all places are in use."""
    ca = PrivateCa(tmp_path)
    pem = ca.certificate("localhost", "127.0.0.1")
    async with serving(replace(PATIENT, connections=8, per_address=8), tls=ServerTls(pem, pem)) as server:
        stalled = connect_all(server.port, 40, b"")
        await until(lambda: server.closed("crowded") >= 40 - 8)
        context = ssl.create_default_context(cafile=ca.file)
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", server.port, ssl=context, server_hostname="localhost"
        )
        writer.write(QUICK)
        assert status_of(await reader.read()) == 200
        writer.close()
        for one in stalled:
            one.close()


async def test_tls_clients_that_never_end_their_side_lose_their_places(tmp_path: Path) -> None:
    """A server that closes waits for the client's close_notify. Such connections must not fill all places."""
    ca = PrivateCa(tmp_path)
    pem = ca.certificate("localhost", "127.0.0.1")
    context = ssl.create_default_context(cafile=ca.file)
    limits = replace(PATIENT, connections=8, per_address=8, head_seconds=0.5)
    async with serving(limits, tls=ServerTls(pem, pem)) as server:

        def shake_hands() -> ssl.SSLSocket:
            return context.wrap_socket(
                socket.create_connection(("127.0.0.1", server.port)), server_hostname="localhost"
            )

        async def is_served() -> bool:
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", server.port, ssl=context, server_hostname="localhost"
            )
            writer.write(QUICK)
            answer = await reader.read()
            writer.close()
            return status_of(answer) == 200

        silent = [await asyncio.to_thread(shake_hands) for _ in range(8)]
        await until(lambda: server.closed("head") == 8)
        assert server.open() == 8
        await until(is_served)
        for one in silent:
            one.close()


async def test_tiny_pieces_are_refused() -> None:
    """Chunks of a byte and thousands of header lines cost the event loop a thousand times their bytes."""
    async with serving(PATIENT) as server:
        async with server.client() as client:
            client.write(
                b"POST /upload HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 40_000
            )
            answer = await client.read_all()
            assert status_of(answer) == 400
            assert b"chunks of the body are too small" in answer
        async with server.client() as client:
            chunk = b"40\r\n" + b"x" * 64 + b"\r\n"
            head = b"POST /upload HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
            client.write(head + chunk * 5000 + b"0\r\n\r\n")
            assert (await client.read_all()).endswith(b"\r\n\r\n320000")
        async with server.client() as client:
            client.write(b"GET /quick HTTP/1.1\r\nHost: a\r\n" + b"a:b\r\n" * 10_000 + b"\r\n")
            answer = await client.read_all()
            assert status_of(answer) == 431
            assert str(MOST_HEADER_LINES).encode() in answer


async def test_lines_of_a_body_are_no_header_lines() -> None:
    """However the bytes are cut into segments, the limit is on the head's lines."""
    body = b"{\n" * 2000
    lines = b"x-a: b\r\n" * (MOST_HEADER_LINES - 4)
    whole = b"POST /upload HTTP/1.1\r\nHost: a\r\n" + lines + f"Content-Length: {len(body)}\r\n\r\n".encode() + body
    end = whole.index(b"\r\n\r\n")
    async with serving(PATIENT) as server, server.client() as client:
        for cut in (end + 1, end + 2, end + 3, end + 4, end + 5):
            for piece in (whole[:cut], whole[cut:]):
                client.write(piece)
                await client.sent()
            assert status_of(await client.read_until(b"4000")) == 200


def test_an_address_is_what_one_client_has() -> None:
    """IPv6 counts by network, because one client has 2**64 addresses."""
    assert peer_of(("192.0.2.7", 1234)) == "192.0.2.7"
    assert peer_of(("::ffff:192.0.2.7", 1, 0, 0)) == "192.0.2.7"
    assert peer_of(("2001:db8:1:2:3:4:5:6", 1, 0, 0)) == peer_of(("2001:db8:1:2::9", 1, 0, 0)) == "2001:db8:1:2::"
    assert peer_of(("fe80::1%eth0", 1, 0, 2)) == "fe80::"


@pytest.mark.parametrize(
    ("environment", "descriptors", "expected"),
    [
        ({}, 1 << 20, (1000, 500, 1000)),
        ({}, 1024, (496, 248, 256)),
        ({"PULSE_HTTP_MAX_CONNECTIONS_PER_ADDRESS": "0"}, 1024, (496, 496, 256)),
        ({"PULSE_HTTP_MAX_CONNECTIONS": "100", "PULSE_HTTP_MAX_CONNECTIONS_PER_ADDRESS": "7"}, 1024, (100, 7, 100)),
        ({}, 20, (16, 8, 16)),
    ],
)
def test_connections_leave_descriptors(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], descriptors: int, expected: tuple[int, int, int]
) -> None:
    """A quarter of the descriptors is reserved for the database, files and outgoing calls."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    limits = Limits.of(HttpSettings(), descriptors=descriptors)
    assert (limits.connections, limits.per_address, limits.lobby) == expected


async def test_every_socket_of_a_process_has_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """The status server of a worker and its port for metrics close idle connections like the API."""
    ports = free_port(), free_port()
    for name, value in {
        "DATABASE_URL": "postgresql://nowhere/pulse",
        "PORT": str(ports[0]),
        "METRICS_PORT": str(ports[1]),
        "HTTP_HEAD_SECONDS": "0.05",
    }.items():
        monkeypatch.setenv(f"PULSE_{name}", value)
    process = Process(settings=DispatcherSettings.load(), metrics=ProcessMetrics("dispatcher"))
    stop = asyncio.Event()
    server = asyncio.create_task(serve_process(process, Starlette(routes=status_routes(process)), stop=stop))
    try:
        for port in ports:

            async def closes(port: int = port) -> bool:
                try:
                    async with RawConnection(port) as idle:
                        idle.write(PARTIAL_HEAD)
                        return status_of(await idle.read_all()) == 408
                except ConnectionRefusedError:
                    return False

            await until(closes)
        closed = process.metrics.registry.get_sample_value("pulse_http_connections_closed_total", {"reason": "head"})
        assert closed == 2
    finally:
        stop.set()
        await server


HUNGRY = """
import asyncio, contextlib, os
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from services.shared import logging
from services.shared.door import Limits
from services.shared.listening import bind, serve_on

async def livez(request):
    return PlainTextResponse("ok")

async def take(request):
    taken = []
    with contextlib.suppress(OSError):
        while True:
            taken.append(os.open("/dev/null", os.O_RDONLY))
    print("taken", flush=True)
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(asyncio.Event().wait(), 1.5)
    for descriptor in taken:
        os.close(descriptor)
    return PlainTextResponse("given back")

logging.configure("hungry")
listening = bind("127.0.0.1", 0)
listening.listen(128)
print(listening.getsockname()[1], flush=True)
app = Starlette(routes=[Route("/take", take), Route("/livez", livez)])
asyncio.run(serve_on([listening], app, stop=asyncio.Event(), limits=Limits(connections=48, per_address=48)))
"""


async def test_a_process_without_descriptors_waits_quietly() -> None:
    """accept() fails once a second, not once for each waiting connection, and then the server recovers."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        HUNGRY,
        stdout=asyncio.subprocess.PIPE,
        cwd=ROOT,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (128, 128)),
    )
    assert process.stdout is not None
    try:
        port = int(await process.stdout.readline())
        async with RawConnection(port) as hungry:
            hungry.request("GET", "/take")
            assert await process.stdout.readline() == b"taken\n"
            idle = [socket.create_connection(("127.0.0.1", port)) for _ in range(100)]
            assert (await hungry.read_all()).endswith(b"given back")
        async with RawConnection(port) as client:
            client.request("GET", "/livez")
            assert status_of(await client.read_all()) == 200
        for one in idle:
            one.close()
    finally:
        process.terminate()
        lines = (await process.stdout.read()).splitlines()
        await process.wait()
    assert 1 <= sum(b'"descriptors":' in line for line in lines) <= 5
    assert len(lines) < 20
