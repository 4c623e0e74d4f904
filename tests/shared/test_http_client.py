"""Outgoing requests reach only checked addresses, and responses are limited to the requested content."""

import asyncio
import datetime as dt
import functools
import gzip
import ssl
from collections.abc import Sequence
from ipaddress import IPv4Address
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from services.shared import tracing
from services.shared.destination import is_admitted
from services.shared.http_client import AddressRefused, Resolver, resolve_name, traced_client
from tests.support.receiver import Receiver

NOT_PUBLIC = [
    "0.0.0.0",
    "0.1.2.3",
    "10.0.0.1",
    "100.64.0.1",
    "100.127.255.255",
    "100.100.100.200",
    "127.0.0.1",
    "127.255.255.254",
    "169.254.169.254",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.192",
    "192.0.2.1",
    "192.88.99.1",
    "192.168.1.1",
    "198.18.0.1",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "239.255.255.255",
    "240.0.0.1",
    "255.255.255.255",
    "168.63.129.16",
    "::",
    "::1",
    "::ffff:8.8.8.8",
    "::ffff:127.0.0.1",
    "::8.8.8.8",
    "64:ff9b::8.8.8.8",
    "64:ff9b:1::1",
    "100::1",
    "2001::1",
    "2001:db8::1",
    "2002:808:808::1",
    "3fff::1",
    "5f00::1",
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1",
    "fe80::1%2",
    "fec0::1",
    "ff02::1",
]
PUBLIC = [
    "8.8.8.8",
    "1.1.1.1",
    "100.63.255.255",
    "100.128.0.1",
    "172.32.0.1",
    "192.0.1.1",
    "2606:4700::1111",
    "2a00:1450::1",
]


def answering(*answers: Sequence[str]) -> tuple[Resolver, list[str]]:
    """Return a resolver that gives these answers in turn, repeating the last one, and the list of requested names."""
    asked: list[str] = []

    async def resolve(host: str, _port: int) -> Sequence[str]:
        asked.append(host)
        return answers[min(len(asked), len(answers)) - 1]

    return resolve, asked


@pytest.mark.parametrize("address", NOT_PUBLIC)
def test_addresses_that_are_not_public_are_refused(address: str) -> None:
    """Private, loopback, link-local, CGNAT, metadata, tunnels to IPv4, multicast, documentation, reserved."""
    assert not is_admitted(address)


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_are_admitted(address: str) -> None:
    """This includes the addresses next to refused networks."""
    assert is_admitted(address)


@pytest.mark.parametrize("address", NOT_PUBLIC)
def test_allowing_private_destinations_admits_loopback_only(address: str) -> None:
    """A development setting must not open the cloud's metadata service."""
    assert is_admitted(address, allow_private=True) == (address.startswith("127.") or address == "::1")


@given(st.integers(0, 2**32 - 1))
def test_no_ipv4_address_gets_in_dressed_as_ipv6(number: int) -> None:
    """Mapped, compatible, NAT64 and 6to4 forms are refused whatever they hold."""
    low, high = f"{number & 0xFFFF:x}", f"{number >> 16:x}"
    forms = [f"::ffff:{high}:{low}", f"::{high}:{low}", f"64:ff9b::{high}:{low}", f"2002:{high}:{low}::1"]
    assert [form for form in forms if is_admitted(form)] == []


@pytest.mark.parametrize(
    "host", ["2130706433", "017700000001", "0x7f.1", "127.1", "127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]"]
)
async def test_every_spelling_of_loopback_is_refused(host: str) -> None:
    """Numeric forms are names until they are resolved; this test uses the system's resolver."""
    async with Receiver() as receiver, traced_client() as client:
        with pytest.raises(AddressRefused, match=r"^The address is not a public one\.$"):
            await client.post(f"http://{host}:{receiver.port}/")
        assert receiver.connections == 0


async def test_one_address_that_is_not_public_refuses_the_name() -> None:
    """A mixed answer is an attack or a fault; the next connection could pick any of its addresses."""
    resolve, _ = answering(["127.0.0.1", "10.0.0.1"])
    async with Receiver() as receiver, traced_client(allow_private=True, resolve=resolve) as client:
        with pytest.raises(AddressRefused):
            await client.get(f"http://hooks.example:{receiver.port}/")
        assert receiver.connections == 0


async def test_a_name_that_changes_its_answer_gains_nothing() -> None:
    """The connection goes to the checked address; the name is not resolved twice."""
    resolve, asked = answering(["127.0.0.2"], ["127.0.0.3"])
    async with Receiver(host="127.0.0.2") as checked, Receiver(host="127.0.0.3", port=checked.port) as other:
        async with traced_client(allow_private=True, resolve=resolve) as client:
            await client.get(f"http://hooks.example:{checked.port}/path?q=1")
        assert (len(checked.requests), other.connections, asked) == (1, 0, ["hooks.example"])
        assert checked.requests[0].line == "GET /path?q=1 HTTP/1.1"
        assert checked.requests[0].header("host") == f"hooks.example:{checked.port}"


async def test_each_new_connection_is_checked_again() -> None:
    """A public address in the past does not admit the next connection."""
    resolve, asked = answering(["127.0.0.1"], ["169.254.169.254"])
    async with Receiver() as receiver, traced_client(allow_private=True, resolve=resolve) as client:
        receiver.default = (200, {"connection": "close"}, b"")
        assert (await client.get(f"http://hooks.example:{receiver.port}/")).status_code == 200
        with pytest.raises(AddressRefused):
            await client.get(f"http://hooks.example:{receiver.port}/")
        assert (receiver.connections, len(asked)) == (1, 2)


async def test_the_next_address_is_tried_when_one_does_not_answer() -> None:
    """One dead machine behind a name must not lose the notification."""
    resolve, _ = answering(["127.0.0.9", "127.0.0.1"])
    async with Receiver() as receiver, traced_client(allow_private=True, resolve=resolve) as client:
        assert (await client.get(f"http://hooks.example:{receiver.port}/")).status_code == 200


async def test_names_without_address_fail_like_any_connection() -> None:
    """An empty answer, an unknown name and an impossible one are all TransportErrors."""
    resolve, _ = answering([])
    async with traced_client(resolve=resolve) as client:
        with pytest.raises(httpx.NetworkError, match="the name does not resolve"):
            await client.get("http://hooks.example/")
    async with traced_client() as client:
        for host in ("nowhere.invalid", "a" * 64 + ".example"):
            with pytest.raises(httpx.NetworkError, match="the name does not resolve"):
                await client.get(f"http://{host}/")


async def test_the_resolver_of_the_system_is_asked_off_the_loop() -> None:
    """The answer is the system's, and a timeout affects no other task."""
    assert set(await resolve_name("localhost", 80)) <= {"127.0.0.1", "::1"}
    lookup = asyncio.create_task(resolve_name("localhost", 80))
    await asyncio.sleep(0)
    lookup.cancel()
    with pytest.raises(asyncio.CancelledError):
        await lookup


async def test_a_resolver_that_hangs_ends_at_the_deadline() -> None:
    """The total deadline counts from before the lookup."""

    async def resolve(_host: str, _port: int) -> Sequence[str]:
        await asyncio.Event().wait()
        return []

    async with traced_client(resolve=resolve, timeout_seconds=0.05) as client:
        with pytest.raises(httpx.ConnectTimeout):
            await client.get("http://hooks.example/")


async def test_the_trace_goes_along_and_nothing_else_of_ours() -> None:
    """Each request is its own span below the current one, or the current span if that is a single call.

    Trace headers from the caller are replaced or dropped; only hosts that the operator chose get tracestate.
    """
    spoofed = {"baggage": "user=ann", "tracestate": "a=b", "traceparent": "spoof", "X-Trace-ID": "spoof", "X-Mine": "1"}
    context = tracing.TraceContext("c" * 32, "d" * 16, tracestate="congo=t61rcWkgMzE", flags="03")
    async with (
        Receiver() as receiver,
        traced_client(allow_private=True) as client,
        traced_client(trusted=True) as trusting,
    ):
        with tracing.use(context):
            for caller in (client, client, trusting):
                await caller.post(receiver.url, headers=spoofed)
        with tracing.use(context._replace(is_call=True)):
            await client.post(receiver.url, headers=spoofed)
        await client.post(receiver.url, headers=spoofed)
        parents = [str(request.header("traceparent")).split("-") for request in receiver.requests]
        *same, outside = [request.header("x-trace-id") for request in receiver.requests]
        assert same == ["c" * 32] * 4
        assert tracing.parse_trace_id(outside) not in (None, "c" * 32)
        assert [parent[1] for parent in parents] == [*same, outside]
        assert {parent[3] for parent in parents} == {"03"}
        assert parents[3][2] == context.span_id
        assert len({parent[2] for parent in parents}) == 5
        assert [request.header("tracestate") for request in receiver.requests] == [
            *(None, None, context.tracestate, None, None)
        ]
        for request in receiver.requests:
            assert (request.header("baggage"), request.header("x-mine")) == (None, "1")


async def test_redirects_are_answers() -> None:
    """The target of a redirect has not been checked against the configuration."""
    async with Receiver() as target, Receiver() as receiver, traced_client(allow_private=True) as client:
        receiver.default = (302, {"location": target.url}, b"")
        assert (await client.get(receiver.url)).status_code == 302
        assert target.connections == 0


async def test_no_cookie_is_remembered() -> None:
    """Two tenants may post to one host."""
    async with Receiver() as receiver, traced_client(allow_private=True) as client:
        receiver.default = (200, {"set-cookie": "session=1; Path=/"}, b"")
        await client.get(receiver.url)
        await client.get(receiver.url)
        assert receiver.requests[1].header("cookie") is None


async def test_proxies_of_the_environment_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy would resolve the name itself, unchecked."""
    for name in ("HTTP_PROXY", "ALL_PROXY", "http_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    async with Receiver() as receiver, traced_client(allow_private=True) as client:
        assert (await client.get(receiver.url)).status_code == 200


async def test_bodies_are_capped_and_kept_as_they_came() -> None:
    """An endless body is cut; a compressed one is not unpacked."""
    bomb = gzip.compress(b"0" * 10_000_000)
    async with Receiver() as receiver, traced_client(allow_private=True, max_body_bytes=20_000) as client:
        receiver.answers += [
            (200, {}, b"x" * 1_000_000),
            (200, {"content-encoding": "gzip"}, bomb),
            (200, {}, b"short"),
        ]
        contents = [(await client.get(receiver.url)).content for _ in range(3)]
        assert contents == [b"x" * 20_000, bomb[:20_000], b"short"]
        assert receiver.requests[0].header("accept-encoding") == "identity"


async def test_no_more_than_the_cap_is_read() -> None:
    """The answer comes when the cap is reached: the rest of the body never does, and the deadline is far."""

    async def stall(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n" + b"x" * 20_000)
        await asyncio.Event().wait()

    async with (
        Receiver() as receiver,
        traced_client(allow_private=True, timeout_seconds=3600, max_body_bytes=20_000) as client,
    ):
        receiver.default = stall
        async with asyncio.timeout(30):
            assert (await client.get(receiver.url)).content == b"x" * 20_000


async def drip(writer: asyncio.StreamWriter, head: bytes = b"HTTP/1.1 200 OK\r\nx-slow: ") -> None:
    """Send endless headers, a byte at a time."""
    writer.write(head)
    while True:
        writer.write(b"x")
        await writer.drain()
        await asyncio.sleep(0.01)


async def test_an_answer_that_does_not_come_ends_at_the_deadline() -> None:
    """Each byte would reset a read timeout; the deadline covers the whole exchange."""
    async with Receiver() as receiver, traced_client(allow_private=True, timeout_seconds=0.3) as client:
        receiver.default = drip
        with pytest.raises(httpx.TimeoutException, match=r"^no answer within 0\.3 s$") as late:
            await client.get(receiver.url)
        assert not isinstance(late.value, httpx.ConnectTimeout)  # which says that nothing was sent
        receiver.default = functools.partial(drip, head=b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n")
        async with asyncio.timeout(30):
            assert set((await client.get(receiver.url)).content) <= set(b"x")
        receiver.hold.clear()
        with pytest.raises(httpx.TimeoutException, match=r"^no answer within 0\.3 s$"):
            await client.get(receiver.url)


async def test_a_name_that_is_no_address_is_no_url() -> None:
    """Octets with leading zeros are refused before any lookup."""
    async with traced_client(allow_private=True) as client:
        with pytest.raises(httpx.InvalidURL):
            await client.get("http://0177.0.0.1/")


async def test_a_status_is_not_taken_back_by_a_body_that_breaks_off() -> None:
    """The receiver answered 200, so a retry would deliver twice."""
    async with Receiver() as receiver, traced_client(allow_private=True) as client:
        receiver.default = b"HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\nhalf"
        response = await client.get(receiver.url)
        assert (response.status_code, response.content) == (200, b"half")


async def test_connections_refused_are_transport_errors() -> None:
    """A caller then needs one except clause."""
    async with Receiver() as receiver:
        port = receiver.port
    async with traced_client(allow_private=True) as client:
        with pytest.raises(httpx.NetworkError):
            await client.get(f"http://127.0.0.1:{port}/")
        with pytest.raises(httpx.TransportError):
            await client.get("ftp://127.0.0.1/")


def certificate(directory: Path, name: str) -> tuple[ssl.SSLContext, ssl.SSLContext, list[str | None]]:
    """Return a server's and a client's TLS context for a certificate of that name, and the names clients asked for."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = dt.datetime.now(dt.UTC)
    built = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.DNSName(name), x509.IPAddress(IPv4Address("127.9.9.9"))]), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem, key_pem = directory / "cert.pem", directory / "key.pem"
    pem.write_bytes(built.public_bytes(serialization.Encoding.PEM))
    key_pem.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(pem, key_pem)
    names: list[str | None] = []
    server.sni_callback = lambda _socket, asked, _context: names.append(asked)
    return server, ssl.create_default_context(cafile=str(pem)), names


async def test_host_name_and_certificate_are_those_of_the_name(tmp_path: Path) -> None:
    """The connection goes to an address, but the request and the certificate check use the name."""
    server, trusting, names = certificate(tmp_path, "hooks.example")
    resolve, _ = answering(["127.0.0.1"])
    async with Receiver(tls=server) as receiver:
        async with traced_client(allow_private=True, resolve=resolve, ssl_context=trusting) as client:
            assert (await client.post(f"https://hooks.example:{receiver.port}/")).status_code == 200
            assert receiver.requests[0].header("host") == f"hooks.example:{receiver.port}"
            assert names == ["hooks.example"]
            with pytest.raises(httpx.TransportError, match="CERTIFICATE_VERIFY_FAILED"):
                await client.post(f"https://other.example:{receiver.port}/")
        async with traced_client(allow_private=True, resolve=resolve) as client:
            with pytest.raises(httpx.TransportError, match="CERTIFICATE_VERIFY_FAILED"):
                await client.post(f"https://hooks.example:{receiver.port}/")
        assert len(receiver.requests) == 1
