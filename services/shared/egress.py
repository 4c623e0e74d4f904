"""Outgoing connections: additional certificate authorities and an egress proxy.

Both http and https use a tunnel (CONNECT) of the proxy. It sees no path, header or body of https calls, and
certificates are verified end to end.
"""

import base64
import re
import ssl
from dataclasses import dataclass, field
from ipaddress import IPv6Address, ip_address
from pathlib import Path
from urllib.parse import unquote, urlsplit

import httpcore
import httpx
from pydantic import SecretStr

_MOST_ANSWER_BYTES = 16_384
_STATUS = re.compile(rb"HTTP/1\.[01] (\d{3})\b")


@dataclass(frozen=True, slots=True)
class Proxy:
    """An HTTP proxy. url: the configured value with its password."""

    host: str
    port: int
    tls: bool = False
    authorization: bytes | None = field(default=None, repr=False)
    url: str = field(default="", repr=False)

    @classmethod
    def parse(cls, url: str) -> "Proxy":
        """Parse http://[user:password@]host:port or https://…. Raises ValueError that does not quote the URL."""
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            raise ValueError("must be http://host:port or https://host:port") from None
        if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
            raise ValueError("must be http://host:port or https://host:port")
        if parts.path not in ("", "/") or parts.query or parts.fragment:
            raise ValueError("must end after the port")
        authorization = None
        if parts.username is not None:
            pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            authorization = b"Basic " + base64.b64encode(pair.encode())
        tls = parts.scheme == "https"
        return cls(parts.hostname, port or (443 if tls else 80), tls, authorization, url)

    async def open_tunnel(
        self, stream: httpcore.AsyncNetworkStream, host: str, port: int, *, seconds: float | None
    ) -> httpcore.AsyncNetworkStream:
        """Open a tunnel through the proxy at the stream's other end. Raises httpcore.ConnectError if it refuses."""
        target = f"{_bracketed(host)}:{port}"
        lines = [f"CONNECT {target} HTTP/1.1", f"Host: {target}", "User-Agent: Pulse"]
        request = "\r\n".join(lines).encode("ascii")
        if self.authorization is not None:
            request += b"\r\nProxy-Authorization: " + self.authorization
        await stream.write(request + b"\r\n\r\n", timeout=seconds)
        answer = b""
        while b"\r\n\r\n" not in answer:
            piece = await stream.read(4096, timeout=seconds)
            answer += piece
            if not piece or len(answer) > _MOST_ANSWER_BYTES:
                raise httpcore.ConnectError("the egress proxy did not answer CONNECT as an HTTP proxy does")
        status = _STATUS.match(answer)
        if status is None or not status[1].startswith(b"2"):
            code = status[1].decode() if status else "no HTTP status"
            raise httpcore.ConnectError(f"the egress proxy refused CONNECT: {code}")
        if not answer.endswith(b"\r\n\r\n"):
            raise httpcore.ConnectError("the egress proxy sent data before the tunnel was used")
        return stream


@dataclass(frozen=True, slots=True)
class Egress:
    """Settings of outgoing connections. no_proxy: hosts that are reached directly; .name covers subdomains."""

    ca_file: Path | None = None
    proxy: Proxy | None = None
    no_proxy: tuple[str, ...] = ()

    def proxy_for(self, host: str) -> Proxy | None:
        """Return the proxy for the host of a URL, or None for a direct connection."""
        name = host.lower().rstrip(".").strip("[]")
        direct = any(name == each or (each.startswith(".") and name.endswith(each)) for each in self.no_proxy)
        return None if direct else self.proxy

    def ssl_context(self) -> ssl.SSLContext:
        """Return a context that verifies certificates against the usual authorities and those of the file."""
        context = httpx.create_ssl_context(trust_env=False)
        if self.ca_file is not None:
            context.load_verify_locations(cafile=self.ca_file)
        return context


DIRECT = Egress()


def check_proxy(url: SecretStr) -> SecretStr:
    """Return the URL if it names a proxy. Raises ValueError."""
    Proxy.parse(url.get_secret_value())
    return url


def check_ca_file(path: Path) -> Path:
    """Return the path if the file is a bundle of certificates. Raises ValueError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.load_verify_locations(cafile=path)
    except FileNotFoundError:
        raise ValueError("there is no such file") from None
    except ssl.SSLError:
        raise ValueError("must hold certificates in PEM form") from None
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror}") from None
    return path


def _bracketed(host: str) -> str:
    try:
        return f"[{host}]" if isinstance(ip_address(host), IPv6Address) else host
    except ValueError:
        return host
