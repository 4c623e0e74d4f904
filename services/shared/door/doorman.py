"""Admission of connections, and closing of connections whose clients are late."""

import asyncio
import logging
from collections import Counter as Tally

from prometheus_client import CollectorRegistry, Counter, Gauge

from services.shared.door.guest import Guest, Peer
from services.shared.door.limits import RESERVE, Limits, peer_of

log = logging.getLogger(__name__)

REASONS = {
    "head": "no whole request head in time",
    "body": "no whole request body in time",
    "send": "the answer was not read in time",
    "crowded": "waited longest when a new connection needed the place",
    "busy": "a request other than a probe got 503 because all places were in use",
    "refused": "all places were in use, including those for probes, or an address had half of the lobby",
    "descriptors": "accept() found no free descriptor",
}


class Door:
    """The connections of a process. An instance belongs to the running event loop."""

    def __init__(self, limits: Limits, registry: CollectorRegistry | None = None) -> None:
        self.limits = limits
        self.now = asyncio.get_running_loop().time
        self.guests: dict[int, Guest] = {}
        """All connections that hold a descriptor, by descriptor."""
        self._peers: dict[str, Peer] = {}
        self._regular: dict[Guest, None] = {}
        self._extra: dict[Guest, None] = {}
        # Connections on which the process waits for the client, the longest wait first.
        self._waiting: dict[Guest, None] = {}
        self._extra_waiting: dict[Guest, None] = {}
        self._told: Tally[str] = Tally()
        self._closed = Counter(
            "pulse_http_connections_closed_total",
            "Connections closed for a limit or a deadline, by reason.",
            ["reason"],
            registry=registry,
        )
        for reason in REASONS:
            self._closed.labels(reason)
        open_connections = Gauge("pulse_http_connections_open", "Open connections.", registry=registry)
        open_connections.set_function(lambda: len(self.guests))

    def make_room(self) -> bool:
        """Return whether one more connection may be admitted now. If not, a place is free in the loop's next pass."""
        if len(self.guests) < self.limits.connections + RESERVE:
            return True
        closing = len(self.guests) > len(self._regular) + len(self._extra)
        return not (closing or self._evict(self._waiting) or self._evict(self._extra_waiting))

    def admit(self, descriptor: int, address: object, close: "Guest.Close") -> Guest | None:
        """Return the place of a new connection, or None to refuse it. close ends it while it has no protocol."""
        name = peer_of(address)
        peer = self._peers.get(name) or Peer(name)
        is_extra = not self._has_place(peer)
        if is_extra and len(self._extra) >= RESERVE and not self._evict(self._extra_waiting):
            self.note("refused")
            return None
        members, waiting = (self._extra, self._extra_waiting) if is_extra else (self._regular, self._waiting)
        guest = Guest(self, peer, descriptor, close, members=members, waiting=waiting)
        self._peers[name] = peer
        self.guests[descriptor] = guest
        guest.wait(self.limits.head_seconds)
        return guest

    def is_extra(self, guest: Guest) -> bool:
        """Return whether a connection was admitted beyond the limits, so that it may send probes only."""
        return guest in self._extra

    def remove(self, guest: Guest) -> None:
        """Forget a connection whose descriptor is closed."""
        if self.guests.get(guest.descriptor) is guest:
            del self.guests[guest.descriptor]

    def forget_peer(self, peer: Peer) -> None:
        """Forget an address that has no connection."""
        if self._peers.get(peer.name) is peer:
            del self._peers[peer.name]

    def miss_descriptor(self) -> None:
        """Free some descriptors after accept() found none."""
        self.note("descriptors")
        for _ in range(RESERVE):
            if not self._evict(self._waiting):
                break

    def note(self, reason: str) -> None:
        """Count a closed connection. tick() logs the counts."""
        self._closed.labels(reason).inc()
        self._told[reason] += 1

    def tick(self) -> None:
        """Close late connections, and log the counts since the last tick."""
        now = self.now()
        for guest in list(self.guests.values()):
            reason = guest.check(now, send_seconds=self.limits.send_seconds)
            if reason is not None:
                self.note(reason)
        if self._told:
            log.warning("connections were closed", extra={"reasons": dict(self._told), "open": len(self.guests)})
            self._told.clear()

    def _has_place(self, peer: Peer) -> bool:
        """Return whether a peer gets one more connection. This may close a connection that waits for its client."""
        if peer.count >= self.limits.per_address and not self.limits.is_trusted(peer.name):
            return self._evict(peer.waiting)
        return len(self._regular) < self.limits.connections or self._evict(self._waiting)

    def _evict(self, waiting: dict[Guest, None]) -> bool:
        """Close the connection that has waited longest for its client. Return False if none waits."""
        for guest in waiting:
            if not guest.is_ours():
                guest.close()
                self.note("crowded")
                return True
        return False
