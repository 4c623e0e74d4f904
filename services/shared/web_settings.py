"""Settings of every HTTP server of Pulse."""

import os
from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationInfo, field_validator

from services.shared.topic_settings import Names, TopicSettings


def _strip(value: object) -> object:
    """Return the value without the line break at the end of a secret's file, which no header can carry."""
    return value.strip() if isinstance(value, str) else value


def _check_hosts(hosts: tuple[str, ...]) -> tuple[str, ...]:
    for host in hosts:
        name = host.removeprefix(".")
        if host != "*" and (not name or not name.isascii() or any(sign in name for sign in " :/*@[]\t")):
            raise ValueError(f"{host[:100]!r} is no name: it takes names, .example.com for all below, or *")
    return hosts


class WebSettings(TopicSettings):
    """Names, certificates and metrics of the HTTP server (docs/operate.md)."""

    allowed_hosts: Annotated[Names, AfterValidator(_check_hosts)] = ()
    """Names that requests may have in Host, separated by commas; `.example.com` allows its subdomains, `*` any name.
    Addresses, localhost, PULSE_HOST and the name of this machine are always allowed."""
    tls_cert_file: Path | None = None
    """Certificate chain in PEM form. With it the process serves only https. A changed file is read again."""
    tls_key_file: Annotated[Path | None, Field(validate_default=True)] = None
    """Private key of the certificate, in PEM form and without a password."""
    serve_metrics: bool = True
    """Serve /metrics."""
    metrics_host: str | None = None
    """Address that PULSE_METRICS_PORT is bound to. Default: PULSE_HOST."""
    metrics_token: Annotated[Annotated[SecretStr, Field(min_length=16)] | None, BeforeValidator(_strip)] = None
    """Bearer token of at least 16 characters, required to read /metrics."""

    @field_validator("tls_key_file")
    @classmethod
    def _has_its_certificate(cls, key: Path | None, info: ValidationInfo) -> Path | None:
        if "tls_cert_file" in info.data and (key is None) != (info.data["tls_cert_file"] is None):
            raise ValueError("needs PULSE_TLS_CERT_FILE, as that needs PULSE_TLS_KEY_FILE")
        return key


class HttpSettings(TopicSettings):
    """Listening sockets of every process (operate.md, Connections and request bodies)."""

    http_max_connections: Annotated[int, Field(ge=16, le=100_000)] = 1000
    """Open connections of a process, never more than half of its file descriptors (`ulimit -n`)."""
    http_max_connections_per_address: Annotated[int | None, Field(ge=0)] = None
    """Open connections from one IPv4 address or IPv6 /64 network. Default: half of all connections. 0: unlimited."""
    http_head_seconds: Annotated[float, Field(gt=0, le=3600)] = 10.0
    """Time-out in seconds for a complete request head and for a TLS handshake, from the start of the connection."""
    http_body_seconds: Annotated[float, Field(gt=0, le=3600)] = 30.0
    """Time-out in seconds for a complete request body. PULSE_HTTP_BODY_BYTES_PER_SECOND extends it for a long body."""
    http_body_bytes_per_second: Annotated[float, Field(ge=1)] = 16_384.0
    """Lowest rate of a long body: each time that many bytes arrive, the time-out moves by one second."""
    http_idle_seconds: Annotated[int, Field(ge=1, le=3600)] = 5
    """Seconds after which an idle connection is closed. A proxy in front must close its idle connections earlier."""
    http_send_seconds: Annotated[float, Field(gt=0, le=3600)] = 30.0
    """Time-out in seconds for a client that does not read its response."""

    @property
    def proxy_networks(self) -> Sequence[IPv4Network | IPv6Network]:
        """Networks of proxies, to which the limit per address does not apply."""
        networks: Sequence[IPv4Network | IPv6Network] = getattr(self, "trusted_proxies", ())
        return networks


class SharedPortSettings(TopicSettings):
    """A port that several processes serve (docs/operate.md)."""

    reuse_port: Annotated[bool, Field(validate_default=True)] = False
    """Share PULSE_PORT with other processes of the same user. Each process needs its own PULSE_METRICS_PORT."""

    @field_validator("reuse_port")
    @classmethod
    def _has_its_own_metrics(cls, reuse_port: bool, info: ValidationInfo) -> bool:  # noqa: FBT001  # pydantic
        if os.environ.get("PULSE_UI_WORKERS"):
            raise ValueError(
                "replaces PULSE_UI_WORKERS: unset that, and start one process for each worker, with"
                " PULSE_REUSE_PORT=true and its own PULSE_METRICS_PORT (docs/operate.md)"
            )
        if reuse_port and info.data.get("metrics_port", "invalid") is None:
            raise ValueError("needs PULSE_METRICS_PORT: on the shared port, any of the processes may answer a scrape")
        return reuse_port
