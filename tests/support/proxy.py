"""A real HTTP proxy on loopback that opens tunnels and keeps the requests for them."""

import asyncio
import ssl
from collections.abc import Mapping
from types import TracebackType
from typing import Self


class TunnelProxy:
    """Answers CONNECT. hosts: the real addresses of targets; refuse: the answer to all requests instead of a tunnel."""

    def __init__(self, *, hosts: Mapping[str, str] | None = None, tls: ssl.SSLContext | None = None) -> None:
        self.asked: list[str] = []
        self.authorizations: list[str | None] = []
        self.refuse: bytes | None = None
        self.port = 0
        self._hosts = dict(hosts or {})
        self._tls = tls
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, ssl=self._tls)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        await self._server.wait_closed()

    @property
    def url(self) -> str:
        """Address at which it serves."""
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self._serve(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        self.asked.append(head[0])
        named = (line.partition(": ") for line in head[1:])
        self.authorizations.append(
            next((value for name, _, value in named if name.lower() == "proxy-authorization"), None)
        )
        if self.refuse is not None:
            writer.write(self.refuse)
            await writer.drain()
            return
        host, _, port = head[0].split(" ")[1].rpartition(":")
        there, back = await asyncio.open_connection(self._hosts.get(host, host), int(port))
        writer.write(b"HTTP/1.1 200 Connection established\r\nVia: tests\r\n\r\n")
        try:
            await asyncio.gather(_copy(reader, back), _copy(there, writer))
        finally:
            back.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while piece := await reader.read(65536):
        writer.write(piece)
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()
