"""The client address of a request, as far as trusted proxies report it."""

from collections.abc import Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

# The text of an IPv6 address with scope, brackets and port is below 80 characters.
_LONGEST_ENTRY = 80
# More hops than any chain of proxies has. A client made up the rest.
_MOST_HOPS = 32


def parse_address(text: str) -> Address | None:
    """Return the address in the text, or None. Port, brackets and scope are dropped; IPv4 inside IPv6 becomes IPv4."""
    text = text.strip(" \t")
    # The check comes before the cached call: the cache must not hold texts of any length.
    return _parse(text) if len(text) <= _LONGEST_ENTRY else None


@lru_cache(maxsize=4096)
def _parse(text: str) -> Address | None:
    if text.startswith("["):
        host, bracket, port = text[1:].partition("]")
        if not bracket or (port and not (port.startswith(":") and _is_port(port[1:]))):
            return None
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
        if not _is_port(port):
            return None
    else:
        host = text
    try:
        # Postgres' inet has no scope, and a scope is meaningless on another machine.
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return None
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address


def _is_port(text: str) -> bool:
    return text.isascii() and text.isdigit() and int(text) <= 65535


class ClientAddress:
    """Walks X-Forwarded-For from the right, over trusted proxies only. Entries left of any other host prove nothing."""

    def __init__(self, trusted_proxies: Sequence[Network]) -> None:
        self._trusted = tuple(trusted_proxies)

    def of(self, peer: str | None, forwarded_for: Sequence[str]) -> Address | None:
        """Return the client's address, or None without a peer address (a Unix socket).

        peer: the other end of the socket. forwarded_for: the header's lines in order. An entry that is no address ends
        the walk at the last trusted proxy.
        """
        address = parse_address(peer) if peer else None
        if address is None or not self._is_trusted(address):
            return address
        hops = ",".join(forwarded_for).rsplit(",", _MOST_HOPS)[-_MOST_HOPS:] if forwarded_for else []
        for hop in reversed(hops):
            previous = parse_address(hop)
            if previous is None:
                break
            address = previous
            if not self._is_trusted(address):
                break
        return address

    def trusts(self, peer: str | None) -> bool:
        """Return whether the other end of the socket is a trusted proxy."""
        address = parse_address(peer) if peer else None
        return address is not None and self._is_trusted(address)

    def _is_trusted(self, address: Address) -> bool:
        return any(address in network for network in self._trusted)
