"""Limits on the connections of one process."""

import resource
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import Self

from services.shared.web_settings import HttpSettings

Network = IPv4Network | IPv6Network

RESERVE = 16
"""Connections beyond the limit that are accepted for probes only."""
_FEWEST = 16
# Leading bytes of an IPv6 address that name the network. One client has a whole network.
_PREFIX_BYTES = 8


@dataclass(frozen=True, slots=True)
class Limits:
    """Counts, seconds and rates. trusted: networks of proxies, which have no limit per address. lobby: its size."""

    connections: int = 1000
    per_address: int = 500
    lobby: int = 64
    head_seconds: float = 10.0
    body_seconds: float = 30.0
    body_bytes_per_second: float = 16_384.0
    idle_seconds: int = 5
    send_seconds: float = 30.0
    trusted: Sequence[Network] = ()

    @classmethod
    def of(cls, settings: HttpSettings, *, descriptors: int | None = None) -> Self:
        """Return the limits of a process. descriptors: how many it may open, by default `ulimit -n`.

        Connections take at most half of the descriptors and the lobby a quarter. The rest is for database, files and
        outgoing calls.
        """
        descriptors = _descriptors() if descriptors is None else descriptors
        connections = min(settings.http_max_connections, max(_FEWEST, descriptors // 2 - RESERVE))
        per_address = settings.http_max_connections_per_address
        return cls(
            connections=connections,
            per_address=max(1, connections // 2) if per_address is None else per_address or connections,
            lobby=min(connections, max(_FEWEST, descriptors // 4)),
            head_seconds=settings.http_head_seconds,
            body_seconds=settings.http_body_seconds,
            body_bytes_per_second=settings.http_body_bytes_per_second,
            idle_seconds=settings.http_idle_seconds,
            send_seconds=settings.http_send_seconds,
            trusted=settings.proxy_networks,
        )

    def is_trusted(self, peer: str) -> bool:
        """Return whether a peer (see peer_of) is a proxy with many clients."""
        address = ip_address(peer)
        return any(address in network for network in self.trusted)


def peer_of(address: object) -> str:
    """Return the IPv4 address of a client, or the /64 network of its IPv6 address."""
    if not isinstance(address, tuple):
        return "0.0.0.0"  # noqa: S104  # a Unix socket has no address
    host = str(address[0])
    if ":" not in host:
        return host
    ip = ip_address(host.partition("%")[0])
    mapped = getattr(ip, "ipv4_mapped", None)
    return str(mapped or ip_address(ip.packed[:_PREFIX_BYTES] + bytes(16 - _PREFIX_BYTES)))


def _descriptors() -> int:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 1 << 30 if soft == resource.RLIM_INFINITY else soft
