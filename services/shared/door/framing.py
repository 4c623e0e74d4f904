"""Limits on the number of chunks and header lines, which cost the event loop far more time than their bytes."""

import re
from typing import Any

import h11

from services.shared.door.length_check import LengthCheck

MOST_HEADER_LINES = 128
# A chunk or header of a few bytes takes 5 to 15 µs. 256 KB, which arrive at once, would take 0.1 to 0.5 s.
_FREE_CHUNKS = 256
_BYTES_PER_CHUNK = 64
_END_OF_HEAD = re.compile(rb"\n\r?\n")


class ManySmallChunks(h11.RemoteProtocolError):
    """A body with more chunks than its length allows."""


class BoundedConnection(h11.Connection):
    """An h11 connection that counts the pieces of a message."""

    def __init__(self, role: Any, max_incomplete_event_size: int) -> None:
        super().__init__(role, max_incomplete_event_size)
        self._receive_buffer = LengthCheck()
        self._chunks = 0
        self._bytes = 0
        self._lines = 0
        self._tail = b""

    def next_event(self) -> Any:
        """Return the next event of h11. Raises ManySmallChunks."""
        event = super().next_event()
        if isinstance(event, h11.Data):
            self._chunks += 1
            self._bytes += len(event.data)
            if self._chunks > _FREE_CHUNKS + self._bytes // _BYTES_PER_CHUNK:
                raise ManySmallChunks("too many small chunks", error_status_hint=400)
        elif isinstance(event, h11.Request):
            self._chunks = self._bytes = self._lines = 0
            self._tail = b""
        return event

    def count_lines(self, data: bytes) -> bool:
        """Return whether a head that continues with data keeps to the limit of lines."""
        if not self._tail and b"\r\n\r\n" in data and data.count(b"\n") <= MOST_HEADER_LINES:
            return True  # nearly every request arrives like this
        piece = self._tail + data
        end = _END_OF_HEAD.search(piece)
        self._lines += piece.count(b"\n", len(self._tail), end.start() if end else len(piece))
        self._tail = piece[-2:]
        return self._lines <= MOST_HEADER_LINES
