"""A proxy in front of Postgres that cuts or stalls the connection at the worst moment: around a commit."""

import asyncio
from collections.abc import Iterator
from typing import Literal, Self
from urllib.parse import parse_qs, unquote, urlsplit, urlunsplit

Cut = Literal["before", "after", "stall", "pass"]


class CuttingProxy:
    """Passes bytes between clients and the server; what happens around a commit is up to the plan.

    At each message that makes the server commit, the plan says: "pass" it, cut "before" it reaches the server, cut
    "after" the server has committed, so that its answer is lost, or "stall" it until `released` is set.
    """

    def __init__(self, url: str, plan: Iterator[Cut] | None = None) -> None:
        self.cuts: list[Cut] = []
        self.released = asyncio.Event()
        self._is_down = False
        self._url = url
        self._plan = plan or iter(())
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        """URL of the same database through the proxy."""
        assert self._server is not None
        parts = urlsplit(self._url)
        port = self._server.sockets[0].getsockname()[1]
        login = parts.netloc.rpartition("@")[0]
        return urlunsplit(parts._replace(netloc=f"{login}@127.0.0.1:{port}", query="sslmode=disable"))

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def go_down(self) -> None:
        """Cut all connections and take no more, as if the server were away."""
        self._is_down = True
        for task in self._tasks:
            task.cancel()

    def come_back(self) -> None:
        """Take connections again."""
        self._is_down = False

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        if self._is_down:
            writer.transport.abort()
            return
        self._tasks.add(task)
        parts = urlsplit(self._url)
        query = {name: unquote(values[0]) for name, values in parse_qs(parts.query).items()}
        host, port = query.get("host", parts.hostname or ""), query.get("port", str(parts.port or 5432))
        connect = (
            asyncio.open_unix_connection(f"{host}/.s.PGSQL.{port}")
            if host.startswith("/")
            else asyncio.open_connection(host, int(port))
        )
        upstream, server = await connect
        answers = asyncio.create_task(_relay(upstream, writer))
        try:
            last = await self._pass_messages(reader, server)
            answers.cancel()
            if last:
                # Behind it a terminate message: the server hangs up once it has committed, with nobody to hear it.
                server.write(last + b"X\x00\x00\x00\x04")
                await asyncio.wait({answers})
                while await upstream.read(65536):
                    pass
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # one of the two went away by itself, or the test is over
        finally:
            answers.cancel()
            server.close()
            writer.transport.abort()

    async def _pass_messages(self, reader: asyncio.StreamReader, server: asyncio.StreamWriter) -> bytes:
        """Pass messages until the plan says to cut; the message that the server shall still get, or nothing."""
        # The first message of a connection has no type byte.
        length = await reader.readexactly(4)
        server.write(length + await reader.readexactly(int.from_bytes(length, "big") - 4))
        executed = False
        while True:
            kind, length = await reader.readexactly(1), await reader.readexactly(4)
            message = kind + length + await reader.readexactly(int.from_bytes(length, "big") - 4)
            executed = executed or kind == b"E"
            # CopyDone, or the Sync after an Execute: with it the server commits.
            if kind == b"c" or (kind == b"S" and executed):
                executed = False
                cut: Cut = next(self._plan, "pass")
                self.cuts.append(cut)
                if cut == "stall":
                    await self.released.wait()
                elif cut != "pass":
                    return message if cut == "after" else b""
            server.write(message)
            await server.drain()


async def _relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()
