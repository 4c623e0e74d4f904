"""A client that speaks HTTP and WebSocket byte by byte, so that it can stop in the middle of everything."""

import asyncio
import re
from types import TracebackType
from typing import Self


class RawConnection:
    """One connection to loopback; leaving it closes it."""

    def __init__(self, port: int) -> None:
        self._port = port

    async def __aenter__(self) -> Self:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.abort()

    def abort(self) -> None:
        """Vanish."""
        self._writer.transport.abort()

    def write(self, data: bytes) -> None:
        """Send bytes as they are."""
        self._writer.write(data)

    def write_eof(self) -> None:
        """Say that no more will come."""
        self._writer.write_eof()

    def request(self, method: str, path: str, *headers: str, body: bytes = b"") -> None:
        """Send a request that is this connection's last."""
        lines = [f"{method} {path} HTTP/1.1", "Host: api.test", "Connection: close", *headers, "", ""]
        self.write("\r\n".join(lines).encode("latin-1") + body)

    async def read_until(self, mark: bytes) -> bytes:
        """What came up to the mark."""
        return await self._reader.readuntil(mark)

    async def read_all(self) -> bytes:
        """What came up to the end of the connection, however it ended."""
        got = bytearray()
        try:
            while piece := await self._reader.read(65536):
                got += piece
        except ConnectionError:
            pass
        return bytes(got)

    def handshake(self, path: str) -> None:
        """Ask for a websocket."""
        lines = [
            f"GET {path} HTTP/1.1",
            "Host: api.test",
            "Connection: Upgrade",
            "Upgrade: websocket",
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
            "Sec-WebSocket-Version: 13",
            "",
            "",
        ]
        self.write("\r\n".join(lines).encode())

    def frame(self, opcode: int, payload: bytes = b"") -> None:
        """Send a short frame; the mask is zero, which leaves it as it is."""
        self.write(bytes((0x80 | opcode, 0x80 | len(payload))) + b"\0\0\0\0" + payload)

    async def read_close(self) -> int | None:
        """The code of the close frame; None when the connection ended without."""
        try:
            while True:
                first, length = await self._reader.readexactly(2)
                payload = await self._reader.readexactly(length)
                if first & 0x0F == 8:
                    return int.from_bytes(payload[:2], "big") if payload else 1005
        except (asyncio.IncompleteReadError, ConnectionError):
            return None


def status_of(response: bytes) -> int | None:
    """The status in a response's first line; None when there is none."""
    found = re.match(rb"HTTP/1\.1 (\d{3}) ", response)
    return int(found[1]) if found else None
