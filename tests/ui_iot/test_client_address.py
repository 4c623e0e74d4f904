"""Client address of a request, and the limit on its failures."""

from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.ui_iot.auth import client_address
from services.ui_iot.auth.client_address import ClientAddress, parse_address
from services.ui_iot.auth.failure_limit import FailureLimit
from tests.support.stepped_clock import SteppedClock

TRUSTED = tuple(ip_network(text) for text in ("10.0.0.0/8", "fd00::/8", "192.0.2.1"))


@pytest.mark.parametrize(
    ("peer", "forwarded_for", "expected"),
    [
        # The header of an untrusted peer is ignored.
        ("203.0.113.7", [], "203.0.113.7"),
        ("203.0.113.7", ["1.1.1.1"], "203.0.113.7"),
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", ["198.51.100.7"], "198.51.100.7"),
        # The client controls the leftmost entry.
        ("10.0.0.1", ["1.1.1.1, 198.51.100.7"], "198.51.100.7"),
        ("10.0.0.1", ["1.1.1.1, 198.51.100.7, 10.2.3.4"], "198.51.100.7"),
        # Several lines form one list.
        ("10.0.0.1", ["1.1.1.1", "198.51.100.7", "10.2.3.4"], "198.51.100.7"),
        ("10.0.0.1", ["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
        # Ports, brackets, mapped and scoped addresses.
        ("10.0.0.1", ["198.51.100.7:4711"], "198.51.100.7"),
        ("10.0.0.1", ["[2001:db8::1]:443"], "2001:db8::1"),
        ("10.0.0.1", ["[2001:db8::1]"], "2001:db8::1"),
        ("10.0.0.1", ["2001:DB8:0::1"], "2001:db8::1"),
        ("::ffff:10.0.0.1", ["::ffff:198.51.100.7"], "198.51.100.7"),
        ("10.0.0.1", ["[::ffff:198.51.100.7]:1"], "198.51.100.7"),
        ("fd00::1", ["fe80::1%eth0"], "fe80::1"),
        ("192.0.2.1", ["198.51.100.7"], "198.51.100.7"),
        ("192.0.2.2", ["198.51.100.7"], "192.0.2.2"),
        # Garbage ends the walk at the last trusted proxy.
        ("10.0.0.1", ["unknown"], "10.0.0.1"),
        ("10.0.0.1", ["198.51.100.7, , 10.0.0.2"], "10.0.0.2"),
        ("10.0.0.1", ["198.51.100.7, _hidden, 10.0.0.2"], "10.0.0.2"),
        ("10.0.0.1", ["198.51.100.7:99999"], "10.0.0.1"),
        ("10.0.0.1", ["198.51.100.7:x"], "10.0.0.1"),
        ("10.0.0.1", ["[198.51.100.7"], "10.0.0.1"),
        ("10.0.0.1", ["[2001:db8::1]x"], "10.0.0.1"),
        ("10.0.0.1", ["198.51.100.07"], "10.0.0.1"),
        ("10.0.0.1", ["0x7f.1"], "10.0.0.1"),
        ("10.0.0.1", ["1" * 10_000], "10.0.0.1"),
        ("10.0.0.1", ["198.51.100.7\x00"], "10.0.0.1"),
        ("10.0.0.1", ["\u0661\u0660.0.0.1"], "10.0.0.1"),
        (None, ["198.51.100.7"], None),
        ("", ["198.51.100.7"], None),
        ("testclient", ["198.51.100.7"], None),
    ],
)
def test_the_address_is_the_last_one_that_a_trusted_proxy_saw(
    peer: str | None, forwarded_for: list[str], expected: str | None
) -> None:
    found = ClientAddress(TRUSTED).of(peer, forwarded_for)
    assert (str(found) if found is not None else None) == expected


@given(st.lists(st.text(max_size=60), max_size=6))
def test_no_header_of_a_stranger_changes_its_address(lines: list[str]) -> None:
    """Any header content is ignored, without an exception."""
    assert str(ClientAddress(TRUSTED).of("203.0.113.7", lines)) == "203.0.113.7"


@given(st.lists(st.text(alphabet="0123456789abcdef.:[]%, \t", max_size=40), max_size=6))
def test_a_client_cannot_choose_its_address_behind_a_proxy(lines: list[str]) -> None:
    """The proxy appends the peer's address. Entries to its left are ignored."""
    assert str(ClientAddress(TRUSTED).of("10.0.0.1", [*lines, "198.51.100.7"])) == "198.51.100.7"


def test_a_long_chain_is_walked_so_far_and_no_further() -> None:
    """No chain of proxies has more than 32 hops."""
    chain = ["198.51.100.7", *(["10.0.0.2"] * 100_000)]
    assert str(ClientAddress(TRUSTED).of("10.0.0.1", [",".join(chain)])) == "10.0.0.2"


def test_an_address_that_fails_too_often_waits_and_recovers_evenly() -> None:
    """60 a minute: a burst of 60, then one a second."""
    clock = SteppedClock()
    limit = FailureLimit(60, clock=clock)
    address = ip_address("198.51.100.7")
    for _ in range(60):
        assert limit.wait_seconds(address) == 0
        limit.record_failure(address)
    assert limit.wait_seconds(address) == 1
    assert limit.wait_seconds(ip_address("198.51.100.8")) == 0
    clock.now += 0.5
    assert limit.wait_seconds(address) == 1
    clock.now += 0.5
    assert limit.wait_seconds(address) == 0
    limit.record_failure(address)
    assert limit.wait_seconds(address) == 1
    clock.now += 3600.0
    for _ in range(60):
        assert limit.wait_seconds(address) == 0
        limit.record_failure(address)
    assert limit.wait_seconds(address) == 1


def test_failures_while_limited_do_not_lock_an_address_out_for_ever() -> None:
    """The bucket never goes below zero."""
    clock = SteppedClock()
    limit = FailureLimit(6, clock=clock)
    for _ in range(1000):
        limit.record_failure(None)
    assert limit.wait_seconds(None) == 10
    clock.now += 10.0
    assert limit.wait_seconds(None) == 0


def test_an_ipv6_customer_is_one_address() -> None:
    """A customer owns a /64 and would otherwise never reach the limit."""
    limit = FailureLimit(2, clock=SteppedClock())
    limit.record_failure(ip_address("2001:db8:0:1::1"))
    limit.record_failure(ip_address("2001:db8:0:1:ffff::2"))
    assert limit.wait_seconds(ip_address("2001:db8:0:1::3")) > 0
    assert limit.wait_seconds(ip_address("2001:db8:0:2::3")) == 0


def test_memory_is_bounded_whatever_the_number_of_addresses() -> None:
    """The address with the oldest failure is evicted first."""
    limit = FailureLimit(1, clock=SteppedClock(), most_addresses=100)
    for number in range(1000):
        limit.record_failure(ip_address(number))
    limited = [number for number in range(1000) if limit.wait_seconds(ip_address(number))]
    assert limited == list(range(900, 1000))


def test_zero_is_no_limit() -> None:
    limit = FailureLimit(0)
    for _ in range(1000):
        limit.record_failure(None)
    assert limit.wait_seconds(None) == 0


def test_what_is_no_address_by_its_length_is_not_remembered() -> None:
    before = client_address._parse.cache_info()  # noqa: SLF001  # its memory is what this is about
    assert parse_address("1" * 81) is None
    assert parse_address(" " * 1000 + "198.51.100.77" + " " * 1000) == ip_address("198.51.100.77")
    assert client_address._parse.cache_info().misses == before.misses + 1  # noqa: SLF001


@given(st.text(max_size=100))
def test_parsing_an_address_never_raises(text: str) -> None:
    parsed = parse_address(text)
    assert parsed is None or ip_address(str(parsed)) == parsed
