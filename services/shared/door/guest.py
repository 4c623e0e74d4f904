"""A connection, its address and its deadline."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from services.shared.door.doorman import Door


class Held(Protocol):
    """The protocol of a connection."""

    def expire(self) -> str | None:
        """Close the connection of a late client. Return the deadline's name, or None to wait on."""

    def is_ours(self) -> bool:
        """Return whether the process, not the client, has to act next."""

    def is_closing(self) -> bool:
        """Return whether the connection only has buffered data to send."""

    def abort(self) -> None:
        """Close the connection at once."""


class Peer:
    """The connections of one address. waiting: connections that wait for their client, the longest wait first."""

    __slots__ = ("count", "name", "waiting")

    def __init__(self, name: str) -> None:
        self.name = name
        self.count = 0
        self.waiting: dict[Guest, None] = {}


class Guest:
    """A connection with its place. members, waiting: the sets of the door in which it is kept."""

    __slots__ = ("_close", "_door", "_members", "_peer", "_waiting", "descriptor", "due", "has_sent", "held")

    Close = Callable[[], None]

    def __init__(
        self,
        door: "Door",
        peer: Peer,
        descriptor: int,
        close: Close,
        *,
        members: dict["Guest", None],
        waiting: dict["Guest", None],
    ) -> None:
        self._door = door
        self._peer = peer
        self._close = close
        self._members = members
        self._waiting = waiting
        self.descriptor = descriptor
        self.held: Held | None = None
        """The protocol. None until the TLS handshake is complete."""
        self.has_sent = False
        """True while a request head is waiting to be read by the process."""
        self.due: float | None = None
        """Deadline of the client. None while the process has to act."""
        members[self] = None
        peer.count += 1

    @property
    def is_gone(self) -> bool:
        """True once the connection has lost its place."""
        return self not in self._members

    def wait(self, seconds: float) -> None:
        """Start to wait for the client, behind all connections that wait already."""
        if self.is_gone:
            return
        self.settle()
        self.due = self._door.now() + seconds
        self._waiting[self] = self._peer.waiting[self] = None

    def settle(self) -> None:
        """Stop waiting."""
        self.due = None
        self._waiting.pop(self, None)
        self._peer.waiting.pop(self, None)

    def extend(self, seconds: float) -> None:
        """Move the deadline."""
        if self.due is not None:
            self.due += seconds

    def is_ours(self) -> bool:
        """Return whether the process, not the client, has to act next."""
        return self.has_sent or (self.held is not None and self.held.is_ours())

    def check(self, now: float, *, send_seconds: float) -> str | None:
        """Close the connection if it is late. Return the deadline's name."""
        if self.due is None:
            if self.held is not None and self.held.is_closing():
                # A TLS client may also hold back its part of the closing. Meanwhile its place can be taken.
                self.wait(send_seconds)
            return None
        if now < self.due:
            return None
        if self.held is None:
            self.close()
            return "head"
        reason = self.held.expire()
        if reason is None:
            self.due = now
        else:
            self.settle()
        return reason

    def close(self) -> None:
        """Close the connection at once and free its place."""
        self._leave()
        if self.held is None:
            self._close()
        else:
            self.held.abort()

    def closed(self) -> None:
        """Record that the descriptor is closed."""
        self._leave()
        self._door.remove(self)

    def _leave(self) -> None:
        self.settle()
        if self._members.pop(self, self) is None:
            self._peer.count -= 1
            if not self._peer.count:
                self._door.forget_peer(self._peer)
