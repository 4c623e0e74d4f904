"""Outgoing calls through a proxy and to servers of a private authority, with all protections of direct calls."""

import base64
from collections.abc import Sequence
from pathlib import Path

import asyncpg
import httpx
import orjson
import pytest

from services.shared import otlp, tracing
from services.shared.egress import Egress, Proxy
from services.shared.http_client import AddressRefused, Resolver, traced_client
from services.shared.settings import DeliverySettings
from tests.support import seed
from tests.support.certificates import PrivateCa
from tests.support.delivery import job
from tests.support.processes import ready_service
from tests.support.proxy import TunnelProxy
from tests.support.receiver import Receiver
from tests.support.wait import until

URL = "postgresql://pulse_app@127.0.0.1/pulse"


def resolving(**answers: Sequence[str]) -> Resolver:
    """Return a resolver for these names, with _ for a dot, and addresses."""

    async def resolve(host: str, _port: int) -> Sequence[str]:
        return answers.get(host.replace(".", "_"), [host])

    return resolve


def through(proxy: TunnelProxy, *, ca: PrivateCa | None = None, url: str | None = None) -> Egress:
    return Egress(ca.file if ca else None, Proxy.parse(url or proxy.url))


async def test_a_private_authority_is_trusted_beside_the_public_ones(tmp_path: Path) -> None:
    ca, other = PrivateCa(tmp_path, "Ours"), PrivateCa(tmp_path, "Other")
    resolve = resolving(hooks_example=["127.0.0.1"], wrong_example=["127.0.0.1"])
    async with Receiver(tls=ca.server("hooks.example")) as receiver:
        url = f"https://hooks.example:{receiver.port}/"
        async with traced_client(allow_private=True, resolve=resolve, egress=Egress(ca.file)) as client:
            assert (await client.post(url)).status_code == 200
            with pytest.raises(httpx.TransportError, match="CERTIFICATE_VERIFY_FAILED"):
                await client.post(f"https://wrong.example:{receiver.port}/")
        for egress in (Egress(), Egress(other.file)):
            async with traced_client(allow_private=True, resolve=resolve, egress=egress) as client:
                with pytest.raises(httpx.TransportError, match="CERTIFICATE_VERIFY_FAILED"):
                    await client.post(url)
        assert len(receiver.requests) == 1
    context = Egress(ca.file).ssl_context()
    # The usual authorities are still trusted.
    assert len(context.get_ca_certs()) > len(Egress().ssl_context().get_ca_certs()) > 20


async def test_a_customers_webhook_goes_through_the_proxy_to_a_checked_address(tmp_path: Path) -> None:
    """The proxy gets the checked address, and never resolves a name that a customer chose."""
    ca = PrivateCa(tmp_path)
    resolve = resolving(
        hooks_example=["127.0.0.1"], inner_example=["10.0.0.1"], mixed_example=["127.0.0.1", "10.0.0.1"]
    )
    async with Receiver(tls=ca.server("hooks.example")) as receiver, TunnelProxy() as proxy:
        async with traced_client(allow_private=True, resolve=resolve, egress=through(proxy, ca=ca)) as client:
            answer = await client.post(f"https://hooks.example:{receiver.port}/in", content=b"body")
            assert answer.status_code == 200
            for name in ("inner.example", "mixed.example", "169.254.169.254"):
                with pytest.raises(AddressRefused):
                    await client.post(f"https://{name}:{receiver.port}/")
            # Plain http uses a tunnel as well, so the proxy sees no request.
            async with Receiver() as plain:
                assert (await client.post(f"http://hooks.example:{plain.port}/secret")).status_code == 200
                assert plain.requests[0].header("host") == f"hooks.example:{plain.port}"
        async with traced_client(resolve=resolve, egress=through(proxy, ca=ca)) as client:
            with pytest.raises(AddressRefused):
                await client.post(f"https://hooks.example:{receiver.port}/in")
        assert receiver.requests[0].header("host") == f"hooks.example:{receiver.port}"
        assert receiver.requests[0].body == b"body"
    assert proxy.asked == [
        f"CONNECT 127.0.0.1:{receiver.port} HTTP/1.1",
        f"CONNECT 127.0.0.1:{plain.port} HTTP/1.1",
    ]
    assert proxy.authorizations == [None, None]


async def test_an_address_of_the_operator_is_resolved_by_the_proxy(tmp_path: Path) -> None:
    """Only the proxy can resolve outside names here. The certificate is still checked against the name."""
    ca = PrivateCa(tmp_path)

    async def resolve(host: str, _port: int) -> Sequence[str]:
        if host != "127.0.0.1":
            raise OSError("only the proxy knows it")
        return [host]

    async with (
        Receiver(tls=ca.server("issuer.example")) as receiver,
        TunnelProxy(hosts={"issuer.example": "127.0.0.1", "evil.example": "127.0.0.1"}) as proxy,
        traced_client(trusted=True, resolve=resolve, egress=through(proxy, ca=ca)) as client,
    ):
        assert (await client.get(f"https://issuer.example:{receiver.port}/")).status_code == 200
        with pytest.raises(httpx.TransportError, match="CERTIFICATE_VERIFY_FAILED"):
            await client.get(f"https://evil.example:{receiver.port}/")
    assert proxy.asked[0] == f"CONNECT issuer.example:{receiver.port} HTTP/1.1"


async def test_a_proxy_may_speak_tls_and_ask_for_credentials(tmp_path: Path) -> None:
    """One TLS connection within the other, each verified."""
    ca = PrivateCa(tmp_path)
    async with Receiver(tls=ca.server("127.0.0.1")) as receiver, TunnelProxy(tls=ca.server("127.0.0.1")) as proxy:
        url = proxy.url.replace("https://", "https://us%40er:p%3Ass@")
        async with traced_client(trusted=True, egress=through(proxy, ca=ca, url=url)) as client:
            assert (await client.get(receiver.url)).status_code == 200
        async with traced_client(trusted=True, egress=through(proxy, url=url)) as client:
            with pytest.raises(httpx.TransportError, match="CERTIFICATE_VERIFY_FAILED"):
                await client.get(receiver.url)
    assert proxy.authorizations == ["Basic " + base64.b64encode(b"us@er:p:ss").decode()]
    assert "p:ss" not in repr(through(proxy, url=url))


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", "refused CONNECT: 407"),
        (b"HTTP/1.0 403 Forbidden\r\nX: y\r\n\r\nno", "refused CONNECT: 403"),
        (b"SSH-2.0-OpenSSH\r\n\r\n", "refused CONNECT: no HTTP status"),
        (b"HTTP/1.1 200 OK\r\n\r\nearly", "sent data before"),
        (b"HTTP/1.1 200 OK\r\n", "did not answer CONNECT"),
        (b"", "did not answer CONNECT"),
        (b"x" * 20_000, "did not answer CONNECT"),
    ],
)
async def test_a_proxy_that_refuses_is_a_transport_error_that_says_so(answer: bytes, said: str) -> None:
    async with TunnelProxy() as proxy, traced_client(trusted=True, egress=through(proxy)) as client:
        proxy.refuse = answer
        with pytest.raises(httpx.NetworkError, match=said):
            await client.get("http://issuer.example/")


async def test_a_proxy_that_is_away_or_silent_costs_the_deadline_at_most() -> None:
    async with TunnelProxy() as proxy:
        egress = through(proxy)
    async with traced_client(trusted=True, egress=egress) as client:
        with pytest.raises(httpx.NetworkError, match="proxy cannot be reached"):
            await client.get("http://issuer.example/")
    async with (
        Receiver() as silent,
        traced_client(trusted=True, timeout_seconds=0.2, egress=Egress(proxy=Proxy.parse(silent.url))) as client,
    ):
        silent.hold.clear()
        with pytest.raises(httpx.TimeoutException):
            await client.get("http://issuer.example/")


async def test_named_hosts_are_called_directly() -> None:
    """By whole names and by suffixes; addresses are still checked."""
    async with Receiver() as receiver, TunnelProxy() as proxy:
        egress = Egress(proxy=Proxy.parse(proxy.url), no_proxy=("127.0.0.1", ".internal", "near.example"))
        resolve = resolving(idp_internal=["127.0.0.1"], near_example=["10.0.0.1"])
        async with traced_client(trusted=True, resolve=resolve, egress=egress) as client:
            for host in ("127.0.0.1", "idp.internal", "IDP.internal"):
                assert (await client.get(f"http://{host}:{receiver.port}/")).status_code == 200
        async with traced_client(resolve=resolve, egress=egress) as client:
            with pytest.raises(AddressRefused):
                await client.get("http://near.example/")
        assert proxy.asked == []
    assert egress.proxy_for("internal") is egress.proxy
    assert egress.proxy_for("far-near.example") is egress.proxy


async def test_spans_take_the_same_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "20")
    ca = PrivateCa(tmp_path)
    async with Receiver(tls=ca.server("127.0.0.1")) as collector, TunnelProxy() as proxy:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", f"{collector.url}/v1/traces")

        async def work() -> int:
            return 1

        for egress in (through(proxy, ca=ca), Egress(ca.file)):
            with tracing.use(tracing.start()), otlp.exporting("dispatcher", egress):
                collector.requests.clear()
                assert await otlp.record_pass("dispatch", work()) == 1
                await until(lambda: collector.requests)
    [asked] = proxy.asked
    assert asked.startswith(f"CONNECT 127.0.0.1:{collector.port} HTTP/1.")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PULSE_EGRESS_PROXY", "socks5://hush@proxy:1080"),
        ("PULSE_EGRESS_PROXY", "hush:3128"),
        ("PULSE_EGRESS_PROXY", "http://hush:99999"),
        ("PULSE_EGRESS_PROXY", "http://hush/path"),
        ("PULSE_EGRESS_PROXY", "http://[::1"),
        ("PULSE_CA_FILE", "/nowhere/hush.pem"),
        ("PULSE_CA_FILE", "/etc/hostname"),
        ("PULSE_CA_FILE", "/etc"),
    ],
)
def test_a_wrong_way_out_ends_the_start(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str, value: str
) -> None:
    monkeypatch.setenv("PULSE_DATABASE_URL", URL)
    monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit) as stopped:
        DeliverySettings.load()
    assert stopped.value.code == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"delivery_worker: {name}: ")
    assert "hush" not in line


def test_the_settings_make_the_way_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    ca = PrivateCa(tmp_path)
    monkeypatch.setenv("PULSE_DATABASE_URL", URL)
    monkeypatch.setenv("PULSE_CA_FILE", str(ca.file))
    monkeypatch.setenv("PULSE_EGRESS_PROXY", "http://user:hush@[::1]:3128")
    monkeypatch.setenv("PULSE_EGRESS_NO_PROXY", "A.example, .b.example")
    settings = DeliverySettings.load()
    assert "hush" not in repr(settings)
    assert settings.egress.ca_file == ca.file
    assert settings.egress.proxy is not None
    assert (settings.egress.proxy.host, settings.egress.proxy.port) == ("::1", 3128)
    assert settings.egress.no_proxy == ("a.example", ".b.example")


@pytest.mark.slow
async def test_workers_call_out_through_the_proxy(
    app_url: str, ops_url: str, conn: asyncpg.Connection, tmp_path: Path
) -> None:
    """Real processes: the delivery worker's webhook and the ops worker's checkpoint, both to a private authority."""
    ca = PrivateCa(tmp_path)
    async with Receiver(tls=ca.server("127.0.0.1")) as receiver, TunnelProxy() as proxy:
        way_out = {"egress_proxy": proxy.url, "ca_file": str(ca.file)}
        config = orjson.dumps({"url": f"{receiver.url}/hook", "secret": "whsec_MDEyMzQ1Njc4OWFiY2RlZmdoaWprbG1u"})
        await job(conn, await seed.channel(conn, config=config.decode()))
        async with ready_service(
            "services.delivery_worker", app_url, allow_private_destinations="true", **way_out
        ) as worker:
            await until(lambda: receiver.requests)
            assert await worker.stop() == 0
        assert receiver.requests[0].line == "POST /hook HTTP/1.1"
        receiver.requests.clear()
        async with ready_service(
            "services.ops_worker", ops_url, audit_anchor_url=f"{receiver.url}/anchor", **way_out
        ) as worker:
            await until(lambda: receiver.requests)
            assert await worker.stop() == 0
        assert receiver.requests[0].line == "POST /anchor HTTP/1.1"
    assert set(proxy.asked) == {f"CONNECT 127.0.0.1:{receiver.port} HTTP/1.1"}
