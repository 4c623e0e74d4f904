"""A listening socket that accepts as its door allows.

asyncio calls accept() until it raises BlockingIOError, and again in the next pass of the event loop if clients are
left. When accept() fails for lack of descriptors, asyncio pauses for a second, but goes on with its loop first: it
would log the failure and schedule the end of the pause as often as its backlog is long.
"""

import contextlib
import errno
import socket
import time
from typing import Any

from services.shared.door.doorman import Door
from services.shared.door.guest import Guest

_NO_RESOURCE = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM))
# Shorter than asyncio's pause.
_PAUSE_SECONDS = 0.5
# asyncio reads from a connection four passes after accept(): until then it seems to wait for its client.
_BURST = 4
"""Connections accepted in one pass of the event loop."""


class _Accepted(socket.socket):
    """A connection that gives its place back when it is closed."""

    guest: Guest | None = None

    def close(self) -> None:
        super().close()
        guest, self.guest = self.guest, None
        if guest is not None:
            guest.closed()

    def cut(self) -> None:
        """Make whoever reads from the connection see its end."""
        with contextlib.suppress(OSError):
            self.shutdown(socket.SHUT_RDWR)


class ListeningSocket(socket.socket):
    """A socket that gets its door before it is served."""

    door: Door | None = None
    _burst = 0
    _paused_until = 0.0

    def accept(self) -> tuple[socket.socket, Any]:
        """Return the next connection that may stay. Raises BlockingIOError when there is none now."""
        if self.door is None:
            return super().accept()
        while self._burst < _BURST and time.monotonic() >= self._paused_until and self.door.make_room():
            self._burst += 1
            try:
                connection, address = self._accept_one(self.door)
            except BlockingIOError:
                break
            if connection.guest is not None:
                return connection, address
            connection.close()
        self._burst = 0
        raise BlockingIOError

    def _accept_one(self, door: Door) -> tuple[_Accepted, Any]:
        try:
            # What socket.accept() calls, which makes no instance of a subclass.
            descriptor, address = self._accept()  # type: ignore[attr-defined]
        except OSError as error:
            if error.errno in _NO_RESOURCE:
                self._paused_until = time.monotonic() + _PAUSE_SECONDS
                door.miss_descriptor()
            raise
        connection = _Accepted(self.family, self.type, self.proto, fileno=descriptor)
        connection.guest = door.admit(descriptor, address, connection.cut)
        return connection, address
