"""Addresses that requests may go to: the ranges that are admitted, and the one form in which an address is stored."""

import re
import socket
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

import idna

LONGEST_URL = 2048
_LONGEST_HOST = 253
_LONGEST_LABEL = 63
_TOO_LONG = f"has a host longer than {_LONGEST_HOST} characters, or {_LONGEST_LABEL} between two dots"
# IDNA 2008: full stops of other scripts also separate labels.
_DOTS = re.compile("[\u3002\uff0e\uff61]")
_URL = re.compile(r"(?P<scheme>[a-z][a-z0-9+.-]*)://(?P<authority>[^/?#]*)(?P<rest>.*)", re.IGNORECASE | re.DOTALL)
_AUTHORITY = re.compile(r"(?P<host>\[[^\]]*\]|[^:\[\]]*)(?::(?P<port>.*))?", re.DOTALL)
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
# Resolvers take a host whose last label is a number for an address in one of inet_aton's forms.
_NUMBER = re.compile(r"[0-9]+|0[xX][0-9a-fA-F]*")

# IANA's special-purpose registry and, last, Azure's metadata service, which stands on a public address. Written out:
# ipaddress.is_global calls multicast global, and its list changes with the Python release.
_REFUSED_V4 = tuple(
    IPv4Network(network)
    for network in (
        *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12"),
        *("192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24"),
        *("203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4", "168.63.129.16/32"),
    )
)
# Only global unicast is let in, which leaves out loopback, mapped, NAT64, unique-local, link-local and multicast.
_ADMITTED_V6 = IPv6Network("2000::/3")
# Teredo and ORCHID, documentation, 6to4, documentation.
_REFUSED_V6 = tuple(IPv6Network(network) for network in ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20"))
_LOOPBACK_V4, _LOOPBACK_V6 = IPv4Network("127.0.0.0/8"), IPv6Address("::1")


def is_admitted(address: str, *, allow_private: bool = False) -> bool:
    """Return whether a connection may go to an address. allow_private admits loopback and no other private address."""
    parsed = ip_address(address)
    if allow_private and (parsed in _LOOPBACK_V4 or parsed == _LOOPBACK_V6):
        return True
    if isinstance(parsed, IPv4Address):
        return not any(parsed in network for network in _REFUSED_V4)
    return parsed in _ADMITTED_V6 and not any(parsed in network for network in _REFUSED_V6)


def read_url(url: str) -> str:
    """Return the address with scheme and host in lower case and ASCII. Raises ValueError with the fault."""
    parts = _URL.fullmatch(url)
    if parts is None or parts["scheme"].lower() not in ("https", "http"):
        raise ValueError("must begin with https://")
    if "@" in parts["authority"]:
        raise ValueError("must not carry a user name or password")
    authority = _AUTHORITY.fullmatch(parts["authority"])
    if authority is None or "\\" in url:
        raise ValueError("has a host that cannot be read")
    rest = parts["rest"]
    if "#" in rest:
        raise ValueError("must not have a fragment, which is never sent")
    if not rest.isascii() or not rest.isprintable() or " " in rest:
        raise ValueError("must have a path and query of percent-encoded ASCII, without spaces")
    return f"{parts['scheme'].lower()}://{_read_host(authority['host'])}{_read_port(authority['port'])}{rest}"


def destination_fault(url: str, *, allow_private: bool) -> str | None:
    """Return why a normalized address is refused, or None. Host names are checked when they resolve."""
    scheme, _, rest = url.partition("://")
    authority = re.split("[/?#]", rest, maxsplit=1)[0]
    host = authority[1:].partition("]")[0] if authority.startswith("[") else authority.partition(":")[0]
    is_here = host == "localhost" or host.endswith(".localhost") or _is_loopback(host)
    if not (is_here and allow_private):
        if is_here or (is_address(host) and not is_admitted(host)):
            return "must not point to a private or reserved address"
        if scheme != "https":
            return "must begin with https://"
    return None


def _read_port(port: str | None) -> str:
    if not port:
        return ""
    if not (port.isascii() and port.isdigit() and len(port) <= 5 and 1 <= int(port) <= 65535 and port[0] != "0"):
        raise ValueError("must have a port from 1 to 65535")
    return f":{port}"


def _read_host(host: str) -> str:
    if not host:
        raise ValueError("has no host")
    if host.startswith("["):
        return _read_v6(host)
    if not host.isprintable() or " " in host or "%" in host:
        raise ValueError("has a host that cannot be read")
    host = _DOTS.sub(".", host)
    if host.endswith(".") and not host.endswith(".."):
        raise ValueError("must have a host without a dot at its end")
    if "" in host.split("."):
        raise ValueError("has a host with two dots in a row or a dot at its beginning")
    if len(host) > _LONGEST_HOST:
        raise ValueError(_TOO_LONG)
    name = _in_ascii(host)
    labels = name.split(".")
    if _NUMBER.fullmatch(labels[-1]):
        return _read_v4(name)
    if len(name) > _LONGEST_HOST or max(map(len, labels)) > _LONGEST_LABEL:
        raise ValueError(_TOO_LONG)
    if not all(map(_LABEL.fullmatch, labels)):
        raise ValueError("has a host with characters that no host name has")
    return name


def _in_ascii(host: str) -> str:
    try:
        if not host.isascii():
            return idna.encode(host, uts46=True).decode().lower()
        if "xn--" in host.lower():
            idna.decode(host)
    except UnicodeError as error:
        too_long = "too long" in str(error)
        raise ValueError(_TOO_LONG if too_long else "has a host that is no internationalized domain name") from None
    return host.lower()


def _read_v6(host: str) -> str:
    try:
        # A zone names an interface of this machine.
        return f"[{IPv6Address(host[1:-1] if '%' not in host else '')}]"
    except ValueError:
        raise ValueError("has a host in brackets that is no IPv6 address") from None


def _read_v4(host: str) -> str:
    try:
        read = str(IPv4Address(socket.inet_aton(host)))
    except OSError:
        raise ValueError("has a host that ends in a number and is no IPv4 address") from None
    if read != host and is_admitted(read):
        raise ValueError(f"must write the IPv4 address as {read}")
    return read


def is_address(host: str) -> bool:
    """Return whether a host is an IP address."""
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _is_loopback(host: str) -> bool:
    return is_address(host) and not is_admitted(host) and is_admitted(host, allow_private=True)
