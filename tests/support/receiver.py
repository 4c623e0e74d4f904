"""A real HTTP server on a loopback port that keeps every request and answers as configured."""

import asyncio
import ssl
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, TypeAlias

import orjson

Answer: TypeAlias = int | bytes | tuple[int, dict[str, str], bytes] | Callable[[asyncio.StreamWriter], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Request:
    """A received request. headers: names in lower case, in order of arrival."""

    line: str
    headers: tuple[tuple[str, str], ...]
    body: bytes
    arrived_at: float

    def header(self, name: str) -> str | None:
        """Return the only value of a header; fail if it occurs twice."""
        values = [value for known, value in self.headers if known == name]
        assert len(values) <= 1, f"{name} came {len(values)} times"
        return values[0] if values else None

    def json(self) -> Any:
        """Return the body, parsed."""
        return orjson.loads(self.body)


class Receiver:
    """Answers 200 unless answers or default says otherwise.

    An answer is a status, a status with headers and body, raw bytes, or a function that writes.
    hold: while it is cleared, requests are read and get no answer.  at_once: most requests that were in hand together.
    """

    def __init__(self, *, host: str = "127.0.0.1", port: int = 0, tls: ssl.SSLContext | None = None) -> None:
        self.host = host
        self.port = port
        self.answers: deque[Answer] = deque()
        self.default: Answer = 200
        self.requests: list[Request] = []
        self.connections = 0
        self.at_once = 0
        self.hold = asyncio.Event()
        self.hold.set()
        self._tls = tls
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._in_hand = 0

    @property
    def url(self) -> str:
        """Address at which it serves."""
        return f"{'https' if self._tls else 'http'}://{self.host}:{self.port}"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, self.host, self.port, ssl=self._tls)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        await self._server.wait_closed()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        try:
            while await self._serve_one(reader, writer):
                pass
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _serve_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        fields = [line.split(": ", 1) for line in head[1:] if line]
        headers = tuple((name.lower(), value) for name, value in fields)
        length = next((int(value) for name, value in headers if name == "content-length"), 0)
        body = await reader.readexactly(length)
        self._in_hand += 1
        self.at_once = max(self.at_once, self._in_hand)
        try:
            self.requests.append(Request(head[0], headers, body, asyncio.get_running_loop().time()))
            await self.hold.wait()
            answer = self.answers.popleft() if self.answers else self.default
        finally:
            self._in_hand -= 1
        if isinstance(answer, bytes):
            writer.write(answer)
            await writer.drain()
            return False
        if callable(answer):
            await answer(writer)
            return False
        status, extra, content = answer if isinstance(answer, tuple) else (answer, {}, b"ok")
        lines = [f"HTTP/1.1 {status} said", f"content-length: {len(content)}"]
        lines += [f"{name}: {value}" for name, value in extra.items()]
        writer.write("\r\n".join([*lines, "", ""]).encode() + content)
        await writer.drain()
        return True
