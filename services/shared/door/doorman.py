"""The connections of a process: which may stay, and which are closed because they keep it waiting."""

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
    "crowded": "waited longest when a new connection needed its place",
    "busy": "a request other than a probe was answered 503, all places being in use",
    "refused": "all places were in use, and those of the probes",
    "descriptors": "accept() failed for lack of descriptors",
}


class Door:
    """Admits connections and closes those whose clients are late. Belongs to the running event loop."""

    def __init__(self, limits: Limits, registry: CollectorRegistry | None = None) -> None:
        self.limits = limits
        self.now = asyncio.get_running_loop().time
        self.guests: dict[int, Guest] = {}
        """Every connection that holds a descriptor, by its descriptor."""
        self._peers: dict[str, Peer] = {}
        self._regular: dict[Guest, None] = {}
        self._extra: dict[Guest, None] = {}
        # Those on which the process waits, the longest wait first.
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
        """Return whether to accept one more now; if not, a place becomes free in the next pass of the event loop."""
        if len(self.guests) < self.limits.connections + RESERVE:
            return True
        closing = len(self.guests) > len(self._regular) + len(self._extra)
        return not (closing or self._evict(self._waiting) or self._evict(self._extra_waiting))

    def admit(self, descriptor: int, address: object, close: "Guest.Close") -> Guest | None:
        """Return the place of a new connection, None when it must be closed. close ends it before it has a protocol."""
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
        """Return whether a connection was accepted beyond the limits: it may send probes only."""
        return guest in self._extra

    def remove(self, guest: Guest) -> None:
        """Forget a connection whose descriptor is closed."""
        if self.guests.get(guest.descriptor) is guest:
            del self.guests[guest.descriptor]

    def forget_peer(self, peer: Peer) -> None:
        """Forget an address without connections."""
        if self._peers.get(peer.name) is peer:
            del self._peers[peer.name]

    def miss_descriptor(self) -> None:
        """Free some descriptors after accept() found none. It is called again in a second."""
        self.note("descriptors")
        for _ in range(RESERVE):
            if not self._evict(self._waiting):
                break

    def note(self, reason: str) -> None:
        """Count a connection that was closed; tick() logs the counts."""
        self._closed.labels(reason).inc()
        self._told[reason] += 1

    def tick(self) -> None:
        """Close what is late, and log what was closed since the last tick."""
        now = self.now()
        for guest in list(self.guests.values()):
            reason = guest.check(now, send_seconds=self.limits.send_seconds)
            if reason is not None:
                self.note(reason)
        if self._told:
            log.warning("connections were closed", extra={"reasons": dict(self._told), "open": len(self.guests)})
            self._told.clear()

    def _has_place(self, peer: Peer) -> bool:
        """Return whether a peer gets one more connection, which may cost one that waits its place."""
        if peer.count >= self.limits.per_address and not self.limits.is_trusted(peer.name):
            return self._evict(peer.waiting)
        return len(self._regular) < self.limits.connections or self._evict(self._waiting)

    def _evict(self, waiting: dict[Guest, None]) -> bool:
        """Close the connection that has waited longest for its client, unless none does."""
        for guest in waiting:
            if not guest.is_ours():
                guest.close()
                self.note("crowded")
                return True
        return False
