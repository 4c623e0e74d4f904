"""Proxy in front of Postgres that passes, cuts or delays whole protocol messages.

client ─▶ message ─▶ script: pass ─▶ server        the same from server to client
                       ├─ before: both connections end before the message arrives
                       ├─ after: the message arrives and takes effect, then both connections end
                       └─ stall: the message waits until `released` is set
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal, Self
from urllib.parse import parse_qs, unquote, urlsplit, urlunsplit

Side = Literal["client", "server"]
"""Sender of a message."""
Cut = Literal["pass", "before", "after", "stall"]

_TERMINATE = b"X\x00\x00\x00\x04"
_GONE = (ConnectionError, asyncio.IncompleteReadError)


@dataclass(frozen=True, slots=True)
class Message:
    """Message in transit. kind: its type byte, empty for the first message of a connection."""

    sender: Side
    kind: bytes
    commits: bool
    """The message makes the server commit a transaction."""


Script = Callable[[Message], Cut]
"""Decides about each message, in the order of arrival."""


class MessageProxy:
    """Proxy on loopback that passes whole messages to the server of the URL, as the script decides."""

    def __init__(self, url: str, script: Script) -> None:
        self._url = url
        self._script = script
        self._server: asyncio.Server | None = None
        self._links: set[asyncio.Task[None]] = set()
        self.released = asyncio.Event()
        self._is_down = False
        self._flowing: dict[Side, asyncio.Event] = {"client": asyncio.Event(), "server": asyncio.Event()}
        self.resume()

    @property
    def url(self) -> str:
        """URL of the same database through the proxy."""
        assert self._server is not None
        parts = urlsplit(self._url)
        port = self._server.sockets[0].getsockname()[1]
        login = parts.netloc.rpartition("@")[0]
        return urlunsplit(parts._replace(netloc=f"{login}@127.0.0.1:{port}", query="sslmode=disable"))

    def stall(self, *senders: Side) -> None:
        """Hold back the messages of these senders until resume(), with all connections open."""
        for sender in senders:
            self._flowing[sender].clear()

    def resume(self) -> None:
        """Pass all messages again."""
        for flowing in self._flowing.values():
            flowing.set()

    def go_down(self) -> None:
        """Cut all connections and refuse new ones, as if the server were away."""
        self._is_down = True
        for link in self._links:
            link.cancel()

    def come_back(self) -> None:
        """Accept connections again."""
        self._is_down = False

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for link in self._links:
            link.cancel()
        await asyncio.gather(*self._links, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        if self._is_down:
            writer.transport.abort()
            return
        self._links.add(task)
        task.add_done_callback(self._links.discard)
        try:
            upstream, server = await self._connect()
        except OSError:
            writer.transport.abort()
            return
        try:
            await _Link(self._decide, reader, server, upstream, writer).run()
        except (*_GONE, asyncio.CancelledError):
            pass  # client or server closed its connection, or the proxy is closed
        finally:
            server.close()
            writer.transport.abort()

    async def _decide(self, message: Message) -> Cut:
        await self._flowing[message.sender].wait()
        cut = self._script(message)
        if cut != "stall":
            return cut
        await self.released.wait()
        return "pass"

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        parts = urlsplit(self._url)
        query = {name: unquote(values[0]) for name, values in parse_qs(parts.query).items()}
        host, port = query.get("host", parts.hostname or ""), query.get("port", str(parts.port or 5432))
        if host.startswith("/"):
            return await asyncio.open_unix_connection(f"{host}/.s.PGSQL.{port}")
        return await asyncio.open_connection(host, int(port))


class _Link:
    """Pair of a client's connection and its connection to the server."""

    def __init__(
        self,
        decide: Callable[[Message], Awaitable[Cut]],
        from_client: asyncio.StreamReader,
        to_server: asyncio.StreamWriter,
        from_server: asyncio.StreamReader,
        to_client: asyncio.StreamWriter,
    ) -> None:
        self._decide = decide
        self._from_client = from_client
        self._to_server = to_server
        self._from_server = from_server
        self._to_client = to_client
        self._in_transaction = False
        self._executed = False
        self._settles = False

    async def run(self) -> None:
        """Pass messages until one side ends or the script cuts."""
        pumps = {asyncio.create_task(self._pump_client()), asyncio.create_task(self._pump_server())}
        try:
            done, _ = await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
        if any(not pump.exception() and pump.result() == "after" for pump in done):
            await self._let_work()

    async def _pump_client(self) -> Cut:
        length = await self._from_client.readexactly(4)
        body = await self._from_client.readexactly(int.from_bytes(length, "big") - 4)
        cut = await self._pass("client", b"", length + body, self._to_server, commits=False)
        while cut == "pass":
            kind, whole = await _read(self._from_client)
            cut = await self._pass("client", kind, whole, self._to_server, commits=self._commits(kind, whole))
        return cut

    async def _pump_server(self) -> Cut:
        cut: Cut = "pass"
        while cut == "pass":
            kind, whole = await _read(self._from_server)
            if kind == b"Z":
                self._in_transaction = whole[5:6] != b"I"
            cut = await self._pass("server", kind, whole, self._to_client, commits=False)
        return cut

    async def _pass(
        self, sender: Side, kind: bytes, whole: bytes, receiver: asyncio.StreamWriter, *, commits: bool
    ) -> Cut:
        cut = await self._decide(Message(sender, kind, commits))
        if cut != "before":
            receiver.write(whole)
            await receiver.drain()
        return cut

    def _commits(self, kind: bytes, whole: bytes) -> bool:
        """Return whether a message commits: CopyDone or a Sync after Execute outside a transaction block, or COMMIT.

        The statement that sets up a new session stores nothing, so it does not count.
        """
        if kind == b"P":
            self._settles = b"pg_is_in_recovery()" in whole
        executed, self._executed = self._executed, kind == b"E" or (self._executed and kind not in b"SQ")
        if kind == b"Q":
            word = whole[5:].lstrip().upper()
            return self._in_transaction == word.startswith(b"COMMIT") and not word.startswith((b"BEGIN", b"COPY"))
        return not self._in_transaction and (kind == b"c" or (kind == b"S" and executed and not self._settles))

    async def _let_work(self) -> None:
        """Wait until the server has executed the message, after which it closes the connection."""
        self._to_server.write(_TERMINATE)
        while await self._from_server.read(65536):
            pass


async def _read(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """Read a message and return its type byte and the whole message."""
    head = await reader.readexactly(5)
    return head[:1], head + await reader.readexactly(int.from_bytes(head[1:], "big") - 4)
