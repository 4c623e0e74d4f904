"""Settings of every HTTP server of Pulse: limits on connections and on the time that clients may take."""

from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Network
from typing import Annotated

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class HttpSettings(BaseSettings):
    """Listening sockets of every process (operate.md, Connections and request bodies)."""

    model_config = SettingsConfigDict(env_prefix="PULSE_", frozen=True, env_ignore_empty=True, extra="ignore")

    http_max_connections: Annotated[int, Field(ge=16, le=100_000)] = 1000
    """Open connections of a process, never more than half of its file descriptors (`ulimit -n`)."""
    http_max_connections_per_address: Annotated[int | None, Field(ge=0)] = None
    """Open connections from one IPv4 address or IPv6 /64 network; unset: half of all, 0: no limit of its own."""
    http_head_seconds: Annotated[float, Field(gt=0, le=3600)] = 10.0
    """Longest wait for a whole request head, and for a TLS handshake, from the start of the connection."""
    http_body_seconds: Annotated[float, Field(gt=0, le=3600)] = 30.0
    """Longest wait for a whole request body; PULSE_HTTP_BODY_BYTES_PER_SECOND extends it for a long body."""
    http_body_bytes_per_second: Annotated[float, Field(ge=1)] = 16_384.0
    """Slowest rate of a long body: each time so many bytes arrive, the deadline moves by one second."""
    http_idle_seconds: Annotated[int, Field(ge=1, le=3600)] = 5
    """Time after an answer at which an unused connection is closed. Choose more than a proxy in front keeps it open."""
    http_send_seconds: Annotated[float, Field(gt=0, le=3600)] = 30.0
    """Longest wait for a client that does not read its answer."""

    @property
    def proxy_networks(self) -> Sequence[IPv4Network | IPv6Network]:
        """Networks of proxies, to which the limit per address does not apply."""
        networks: Sequence[IPv4Network | IPv6Network] = getattr(self, "trusted_proxies", ())
        return networks
