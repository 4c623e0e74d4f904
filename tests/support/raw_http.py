"""A client that speaks HTTP byte by byte, so that it can stop at any point."""

import asyncio
import re
from types import TracebackType
from typing import Self


class RawConnection:
    """One connection to loopback; leaving the block closes it."""

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
        """Abort the connection."""
        self._writer.transport.abort()

    def write(self, data: bytes) -> None:
        """Send raw bytes."""
        self._writer.write(data)

    def write_eof(self) -> None:
        """Signal the end of the request."""
        self._writer.write_eof()

    def request(self, method: str, path: str, *headers: str, body: bytes = b"") -> None:
        """Send the last request of this connection."""
        lines = [f"{method} {path} HTTP/1.1", "Host: api.test", "Connection: close", *headers, "", ""]
        self.write("\r\n".join(lines).encode("latin-1") + body)

    async def read_until(self, mark: bytes) -> bytes:
        """Return the bytes received up to the mark."""
        return await self._reader.readuntil(mark)

    async def read_all(self) -> bytes:
        """Return the bytes received up to the end of the connection, whether closed or aborted."""
        got = bytearray()
        try:
            while piece := await self._reader.read(65536):
                got += piece
        except ConnectionError:
            pass
        return bytes(got)


def status_of(response: bytes) -> int | None:
    """Return the status in a response's first line; None when there is none."""
    found = re.match(rb"HTTP/1\.1 (\d{3}) ", response)
    return int(found[1]) if found else None
