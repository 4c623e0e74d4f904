"""Accepted connections without a place, grouped by the data that their clients have sent."""

import contextlib
import socket
from collections import deque
from collections.abc import Callable

from services.shared.door.limits import peer_of
from services.shared.web import PROBE_PATHS

_MOST_PEEKED = 4096
_PROBES = tuple(f"{method} {path} ".encode() for path in sorted(PROBE_PATHS) for method in ("GET", "HEAD"))
_TLS_HANDSHAKE = b"\x16"

PROBE, REQUEST, PARTIAL = range(3)
"""Ranks: the whole head of a probe; another whole head, or a TLS handshake; less than that."""


class Arrival(socket.socket):
    """An accepted connection. has_head: a whole HTTP head is known to be there. on_close: called at close()."""

    address: object = None
    has_head = False
    on_close: Callable[[], None] | None = None

    @property
    def peer(self) -> str:
        """Return the name of the client's address."""
        return peer_of(self.address)

    def close(self) -> None:
        """Close the descriptor and report that."""
        super().close()
        on_close, self.on_close = self.on_close, None
        if on_close is not None:
            on_close()

    def cut(self) -> None:
        """End the connection for its reader without closing the descriptor."""
        with contextlib.suppress(OSError):
            self.shutdown(socket.SHUT_RDWR)

    def answer(self, answer: bytes) -> None:
        """Answer a whole head, if the client can take the answer at once."""
        with contextlib.suppress(OSError):
            # Closing with unread data would reset the connection before the client reads the answer.
            self.recv(65536)
            self.send(answer)

    def rank(self) -> int | None:
        """Return PROBE, REQUEST or PARTIAL, or None if the client has gone. Leaves the data unread."""
        try:
            data = self.recv(_MOST_PEEKED, socket.MSG_PEEK)
        except BlockingIOError:
            return PARTIAL
        except OSError:
            return None
        if not data:
            return None
        if b"\r\n\r\n" in data:
            self.has_head = True
            return PROBE if data.startswith(_PROBES) else REQUEST
        return REQUEST if data.startswith(_TLS_HANDSHAKE) or len(data) == _MOST_PEEKED else PARTIAL


class Queue:
    """Arrivals, one address after the other, in order of arrival within an address."""

    def __init__(self) -> None:
        self._by_peer: dict[str, deque[Arrival]] = {}
        self.length = 0

    def add(self, arrival: Arrival) -> None:
        """Append an arrival."""
        self._by_peer.setdefault(arrival.peer, deque()).append(arrival)
        self.length += 1

    def next(self) -> Arrival:
        """Remove and return the oldest arrival of the next address. Raises StopIteration if there is none."""
        peer = next(iter(self._by_peer))
        arrival = self.take(peer)
        if peer in self._by_peer:
            self._by_peer[peer] = self._by_peer.pop(peer)
        return arrival

    def longest(self) -> tuple[str, int]:
        """Return the address with the most arrivals and their number, or an empty text and 0 if there is none."""
        peer = max(self._by_peer, key=lambda name: len(self._by_peer[name]), default="")
        return peer, len(self._by_peer.get(peer, ()))

    def take(self, peer: str) -> Arrival:
        """Remove and return the oldest arrival of an address. Raises KeyError if it has none."""
        arrivals = self._by_peer[peer]
        arrival = arrivals.popleft()
        self.length -= 1
        if not arrivals:
            del self._by_peer[peer]
        return arrival


class Lobby:
    """The waiting arrivals, one queue a rank."""

    def __init__(self) -> None:
        self._queues = (Queue(), Queue(), Queue())

    def __len__(self) -> int:
        return sum(queue.length for queue in self._queues)

    def add(self, arrival: Arrival) -> None:
        """Queue an arrival by its rank, or close it if its client has gone."""
        rank = arrival.rank()
        if rank is None:
            arrival.close()
        else:
            self._queues[rank].add(arrival)

    def count(self, rank: int) -> int:
        """Return the number of arrivals of a rank."""
        return self._queues[rank].length

    def next(self, rank: int) -> Arrival:
        """Remove and return the next arrival of a rank. Raises StopIteration if there is none."""
        return self._queues[rank].next()

    def drop_partial(self) -> Arrival | None:
        """Remove and return an arrival without a whole head, the oldest of the address with the most."""
        queue = self._queues[PARTIAL]
        while queue.length:
            arrival = queue.take(queue.longest()[0])
            if arrival.rank() == PARTIAL:
                return arrival
            # Its head has come in the meantime.
            self.add(arrival)
        return None

    def drop_request(self, most: int, *, spared: Callable[[str], bool]) -> Arrival | None:
        """Remove and return the oldest request of the address with the most, if these are more than most."""
        queue = self._queues[REQUEST]
        peer, count = queue.longest()
        return queue.take(peer) if count > most and not spared(peer) else None
