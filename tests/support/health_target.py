"""A service as the health monitor sees it: a real HTTP server on its own port that can be made to fail."""

import asyncio
from types import TracebackType
from typing import Any, Self

import orjson

OK: dict[str, Any] = {"status": "ok", "counters": {"passes": 3, "rows": 7, "errors": 0}}


class HealthTarget:
    """Answers every request with status and body once it may, or not at all.

    requests: the headers of each, in lower case.  at_once: most requests that were in hand together.
    """

    def __init__(self) -> None:
        self.status = 200
        self.body: bytes = orjson.dumps(OK)
        self.hangs = False
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.at_once = 0
        self.requests: list[dict[str, str]] = []
        self.port = 0
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()

    @property
    def url(self) -> str:
        """Address of its /health."""
        return f"http://127.0.0.1:{self.port}/health"

    async def up(self) -> None:
        """Listen, on the same port as before."""
        self._server = await asyncio.start_server(self._answer, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def down(self) -> None:
        """Refuse connections, and abort the open ones."""
        if self._server is not None:
            self._server.close()
            for writer in self._open:
                writer.close()
            await self._server.wait_closed()
            self._server = None

    async def __aenter__(self) -> Self:
        await self.up()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.down()

    def report(self, **fields: Any) -> None:
        """Answer with a health report that differs in these fields."""
        self.body = orjson.dumps({**OK, **fields})

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        self.at_once = max(self.at_once, len(self._open))
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            self.requests.append(dict(line.lower().split(": ", 1) for line in head[1:] if line) | {":request": head[0]})
            if self.hangs:
                await reader.read()  # until the other side gives up
            else:
                await self.may_answer.wait()
                start = f"HTTP/1.1 {self.status} x\r\ncontent-length: {len(self.body)}\r\nconnection: close\r\n\r\n"
                writer.write(start.encode() + self.body)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self._open.discard(writer)
            writer.close()
