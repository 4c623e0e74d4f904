"""The acceptor of a listening socket.

It takes connections out of the kernel's queue faster than they can be served, so that a probe is found behind a flood
of other connections. Those that cannot be served in the same pass of the event loop wait in the lobby.
"""

import asyncio
import contextlib
import errno
import socket
from collections.abc import Awaitable, Callable

from services.shared.door.doorman import Door
from services.shared.door.limits import RESERVE
from services.shared.door.lobby import PARTIAL, PROBE, REQUEST, Arrival, Lobby
from services.shared.door.problem import busy_answer

_BACKLOG = 2048
_NO_RESOURCE = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM))
_PAUSE_SECONDS = 1.0
_ACCEPTED = 64
"""Connections accepted in one pass of the event loop."""
_SERVED = {PROBE: 4, REQUEST: 3, PARTIAL: 1}
"""Connections of each rank that leave the lobby in one pass: making a protocol takes far longer than accepting."""
# asyncio reads from a connection three passes after accept(). Until then it seems to wait for its client.
_AT_ONCE = 4
"""Connections that are served without a look at their data in one pass."""


class Acceptor:
    """Accepts connections for a Door until it is closed. serve makes the protocol of one."""

    def __init__(self, listening: socket.socket, door: Door, serve: Callable[[Arrival], Awaitable[object]]) -> None:
        self._loop = asyncio.get_running_loop()
        self._listening = listening
        self._door = door
        self._serve = serve
        self._lobby = Lobby()
        self._handle: asyncio.Handle | None = None
        self._pause: asyncio.Handle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        listening.setblocking(False)  # noqa: FBT003  # the socket's signature
        listening.listen(_BACKLOG)
        self._loop.add_reader(listening, self._accept)

    def close(self) -> None:
        """Stop accepting, and close what waits in the lobby."""
        self._loop.remove_reader(self._listening)
        for handle in (self._handle, self._pause):
            if handle is not None:
                handle.cancel()
        for rank in _SERVED:
            while self._lobby.count(rank):
                self._lobby.next(rank).close()

    async def wait_closed(self) -> None:
        """Return at once; uvicorn waits for its servers."""

    def _accept(self) -> None:
        for number in range(_ACCEPTED):
            if not self._make_space():
                break
            try:
                arrival = self._accept_one()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                break
            except OSError as error:
                if error.errno not in _NO_RESOURCE:
                    raise
                self._miss_descriptor()
                break
            if number >= _AT_ONCE or self._lobby or not self._door.make_room():
                self._lobby.add(arrival)
            else:
                self._start(arrival)
        if self._lobby and self._handle is None:
            self._handle = self._loop.call_soon(self._serve_lobby)

    def _accept_one(self) -> Arrival:
        # socket.accept() calls this, but makes no instance of a subclass.
        descriptor, address = self._listening._accept()  # type: ignore[attr-defined]  # noqa: SLF001
        arrival = Arrival(self._listening.family, self._listening.type, self._listening.proto, fileno=descriptor)
        arrival.setblocking(False)  # noqa: FBT003  # the socket's signature
        arrival.address = address
        return arrival

    def _make_space(self) -> bool:
        """Return whether the lobby can take one more.

        A full one drops connections without a whole head first, then requests of an address that has more than half.
        """
        most = self._door.limits.lobby
        if len(self._lobby) < most:
            return True
        if self._drop_partial():
            return True
        request = self._lobby.drop_request(most // 2, spared=self._door.limits.is_trusted)
        if request is not None:
            self._refuse(request)
        return request is not None

    def _serve_lobby(self) -> None:
        self._handle = None
        for rank, most in _SERVED.items():
            for _ in range(min(most, self._lobby.count(rank))):
                if not self._door.make_room():
                    break
                self._start(self._lobby.next(rank))
        if self._lobby:
            self._handle = self._loop.call_soon(self._serve_lobby)

    def _start(self, arrival: Arrival) -> None:
        guest = self._door.admit(arrival.fileno(), arrival.address, arrival.cut)
        if guest is None:
            self._refuse(arrival)
            return
        guest.has_sent = arrival.has_head
        arrival.on_close = guest.closed
        task = self._loop.create_task(self._run(arrival))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, arrival: Arrival) -> None:
        # The client has gone, or its TLS handshake failed or was cut: asyncio closes the connection.
        with contextlib.suppress(OSError):
            await self._serve(arrival)

    def _refuse(self, arrival: Arrival) -> None:
        self._door.note("refused")
        if arrival.has_head:
            arrival.answer(busy_answer())
        arrival.close()

    def _drop_partial(self) -> bool:
        arrival = self._lobby.drop_partial()
        if arrival is None:
            return False
        self._door.note("crowded")
        arrival.close()
        return True

    def _miss_descriptor(self) -> None:
        self._door.miss_descriptor()
        for _ in range(RESERVE):
            self._drop_partial()
        # The socket stays readable, so the event loop would call again at once.
        self._loop.remove_reader(self._listening)
        self._pause = self._loop.call_later(_PAUSE_SECONDS, self._loop.add_reader, self._listening, self._accept)
