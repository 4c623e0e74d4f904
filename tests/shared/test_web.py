"""The work of every HTTP server before its application: headers, Host, probes, framing, certificates, closed pages."""

import asyncio
import hashlib
import os
import re
import ssl
import warnings
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest

from services.shared.metrics import ProcessMetrics
from services.shared.server import Process, serve, serve_process, status_app
from services.shared.settings import EvaluatorSettings, UiSettings
from services.shared.web import BadCertificate, Hosts, ServerTls, headers_for
from services.ui_iot.auth.credentials import Headers, find_token
from services.ui_iot.auth.refusals import Refusal
from tests.support import seed
from tests.support.api_client import Api, open_api, token
from tests.support.certificates import PrivateCa
from tests.support.migrator import ROOT
from tests.support.problem import assert_problem
from tests.support.processes import free_port
from tests.support.raw_http import RawConnection, status_of
from tests.support.wait import until

NOWHERE = "postgresql://nobody@127.0.0.1:1/nowhere"
DEVICES = "/api/v1/devices"


@pytest.fixture
async def api(app_url: str, conn: asyncpg.Connection) -> AsyncIterator[Api]:
    await seed.device(conn)
    async with open_api(app_url) as opened:
        yield opened


@asynccontextmanager
async def listening(api: Api) -> AsyncIterator[int]:
    """Yield the port of the application, served over sockets."""
    stop, port = asyncio.Event(), free_port()
    server = asyncio.create_task(serve(api.app, host="127.0.0.1", port=port, stop=stop))
    try:
        await until(lambda: answers(port))
        yield port
    finally:
        stop.set()
        await server


async def answers(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except ConnectionRefusedError:
        return False
    writer.close()
    return True


def headers_of(answer: bytes) -> list[tuple[bytes, bytes]]:
    lines = answer.partition(b"\r\n\r\n")[0].split(b"\r\n")[1:]
    return [(name.lower(), value.strip()) for name, _, value in (line.partition(b":") for line in lines)]


def assert_secured(headers: list[tuple[bytes, bytes]], *, scheme: str = "http") -> None:
    """Check every header and its value, except policy and cache control of an answer that sets its own."""
    for name, value in headers_for(scheme):
        found = [each for given, each in headers if given == name]
        assert len(found) == 1, (name, headers)
        if name != b"content-security-policy":
            assert found == [value], name
        else:
            assert b"default-src 'none'" in found[0]
            assert b"frame-ancestors 'none'" in found[0]


def head(method: str, path: str, *lines: str) -> bytes:
    return "\r\n".join((f"{method} {path} HTTP/1.1", *lines, "Connection: close", "", "")).encode("latin-1")


async def test_every_answer_has_the_headers(api: Api) -> None:
    let_in = f"Authorization: Bearer {token()}"
    host = "Host: api.test"
    known = (await api.call("GET", f"{DEVICES}/boiler-1")).headers["etag"]
    async with listening(api) as port:

        async def ask(data: bytes) -> bytes:
            async with RawConnection(port) as connection:
                connection.write(data)
                return await connection.read_all()

        cases = [
            (200, head("GET", DEVICES, host, let_in)),
            (200, head("HEAD", DEVICES, host, let_in)),
            (304, head("GET", f"{DEVICES}/boiler-1", host, let_in, f"If-None-Match: {known}")),
            (401, head("GET", DEVICES, host)),
            (403, head("POST", DEVICES, host, f"Authorization: Bearer {token(role='viewer')}", "Content-Length: 0")),
            (404, head("GET", "/api/v1/nowhere", host, let_in)),
            (405, head("PUT", DEVICES, host, let_in)),
            (422, head("GET", f"{DEVICES}?limit=0", host, let_in)),
            (414, head("GET", f"{DEVICES}?{'a' * 9000}", host, let_in)),
            (415, head("POST", DEVICES, host, let_in, "Content-Encoding: gzip", "Content-Length: 0")),
            (413, head("POST", DEVICES, host, let_in, "Content-Length: 99999999")),
            (204, head("DELETE", f"{DEVICES}/boiler-1", host, let_in)),
            (421, head("GET", DEVICES, "Host: evil.example", let_in)),
            (403, head("GET", "/api/v1/audit/tail", host, let_in, "Connection: Upgrade", "Upgrade: websocket")),
            (400, b"nonsense\r\n\r\n"),
            (400, head("GET", "/livez", "Host: a", "Host: b")),
            (431, b"GET /livez HTTP/1.1\r\nHost: api.test\r\nX: " + b"a" * 70_000),
            (501, head("POST", "/livez", host, "Transfer-Encoding: gzip")),
            *((200, head("GET", path, host)) for path in ("/docs", "/openapi.json", "/livez", "/metrics", "/health")),
        ]
        for status, request in cases:
            answer = await ask(request)
            assert status_of(answer) == status, (request[:80], answer[:200])
            assert_secured(headers_of(answer))


async def test_a_crash_has_the_headers(api: Api) -> None:
    async def crash() -> None:
        raise RuntimeError("secret detail")

    # The layers lead to the wrapped application.
    layer: Any = api.app
    while not hasattr(layer, "router"):
        layer = layer.app
    layer.add_api_route("/api/v1/crash", crash)
    response = await api.call("GET", "/api/v1/crash")
    assert response.status_code == 500
    assert_secured([(name.lower(), value) for name, value in response.headers.raw])


SMUGGLED = [
    ("Content-Length: 4", "Transfer-Encoding: chunked"),
    ("Transfer-Encoding: chunked", "Content-Length: 4"),
    ("transfer-encoding: chunked", "CONTENT-LENGTH: 0"),
    ("Content-Length: 4", "Content-Length: 4"),
    ("Content-Length: 4", "Content-Length: 5"),
    ("Content-Length: 4, 4",),
    ("Content-Length: 4,5",),
    ("Content-Length: 4,",),
    ("Transfer-Encoding: chunked", "Transfer-Encoding: chunked"),
    ("Transfer-Encoding: chunked, chunked",),
    ("Transfer-Encoding: identity", "Content-Length: 4"),
    ("Content-Length : 4", "Transfer-Encoding: chunked"),
    ("Content-Length: 4", " Transfer-Encoding: chunked"),
    ("Transfer-Encoding:\tchunked", "X: y", "Content-Length:4"),
    ("Content-Length: -4",),
    ("Content-Length: 0x4",),
    ("Content-Length: ",),
]


async def test_a_body_whose_length_is_stated_twice_is_400_and_ends_the_connection(api: Api) -> None:
    second = head("GET", "/livez", "Host: api.test")
    async with listening(api) as port:
        for version, lines in [*(("1.1", lines) for lines in SMUGGLED), ("1.0", ("Transfer-Encoding: chunked",))]:
            async with RawConnection(port) as connection:
                first = "\r\n".join((f"POST /livez HTTP/{version}", "Host: api.test", *lines, "", "")).encode()
                connection.write(first + b"0\r\n\r\n" + second)
                answer = await connection.read_all()
            assert status_of(answer) in (400, 501), (lines, answer)
            assert answer.count(b"HTTP/1.1 ") == 1, (lines, answer)
            assert b"connection: close" in answer.lower()
        for lines, body in (
            (("Content-Length: 2",), b"{}"),
            (("Transfer-Encoding: chunked",), b"2\r\n{}\r\n0\r\nContent-Length: 2\r\n\r\n"),
            (("X-Content-Length: 1", "Content-Length: 2", "Content-Type: application/json"), b"{}"),
        ):
            async with RawConnection(port) as connection:
                connection.write(head("POST", "/auth/refresh", "Host: api.test", *lines) + body)
                assert status_of(await connection.read_all()) == 422, lines


HOSTS: list[tuple[str, str, tuple[str, ...], str, str]] = [
    (
        "bound to loopback",
        "127.0.0.1",
        (),
        "localhost localhost:8081 LOCALHOST. a.localhost 127.0.0.1 127.0.0.1:80 10.0.0.7:8081 [::1]:8081 [::1]",
        """evil.example evil localhost.evil.example 127.0.0.1.nip.io :80 a@b localhost:x localhost@evil.example [::1
        [evil.example] localhost/evil evil.example:8081 2130706433x localhost,evil.example [::1]evil \xff pulse ::1""",
    ),
    (
        "bound to every address",
        "0.0.0.0",
        (),
        "10.0.0.7 localhost pulse ui.pulse.svc.cluster.local pulse.internal:8081",
        "evil.example local.evil.example internal.example xlocal.com " + "a" * 300,
    ),
    ("bound to a name", "pulse.example.com", (), "pulse.example.com pulse", "a.pulse.example.com evil.example"),
    (
        "one name",
        "0.0.0.0",
        ("Pulse.example.com",),
        "pulse.example.com PULSE.example.com.:443 10.0.0.7 localhost",
        "a.pulse.example.com pulse x.local evil.example",
    ),
    (
        "a domain",
        "0.0.0.0",
        (".example.com",),
        "a.example.com a.b.example.com:8081",
        "example.com evilexample.com example.com.evil",
    ),
    ("any", "127.0.0.1", ("*",), "evil.example a@b", ""),
]


@pytest.mark.parametrize(("_case", "bound", "setting", "good", "bad"), HOSTS)
def test_hosts(_case: str, bound: str, setting: tuple[str, ...], good: str, bad: str) -> None:
    hosts = Hosts.of(setting, bound, None)
    known = {host: hosts.admits(host.encode("latin-1")) for host in (*good.split(), *bad.split())}
    assert known == dict.fromkeys(good.split(), True) | dict.fromkeys(bad.split(), False)
    assert hosts.admits(os.uname().nodename.encode())
    assert hosts.admits(b"") is (setting == ("*",))


async def test_another_servers_name_is_refused_with_a_trace_id(api: Api) -> None:
    for host in ("evil.example", "api.test.evil.example", "api.test@evil.example"):
        refused = await api.client.get("/livez", headers={"Host": host})
        assert "PULSE_ALLOWED_HOSTS" in assert_problem(refused, 421)["detail"]
    assert (await api.client.get("/livez", headers={"Host": "192.0.2.7:8081"})).status_code == 200


@pytest.mark.parametrize("value", ["a b", "http://pulse.example", "pulse:80", "a,*.example.com", ".", "é.example"])
def test_a_wrong_list_of_hosts_ends_the_start(
    value: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PULSE_DATABASE_URL", NOWHERE)
    monkeypatch.setenv("PULSE_ALLOWED_HOSTS", value)
    with pytest.raises(SystemExit):
        UiSettings.load()
    assert "PULSE_ALLOWED_HOSTS: " in capsys.readouterr().err


async def test_an_encoded_path_is_no_probe(api: Api, conn: asyncpg.Connection) -> None:
    """Such a path needs a token, is logged and is counted like any other."""
    for path in ("/%6Civez", "/live%7A", "/%6detrics", "/healt%68z", "/%64ocs", "/openapi%2ejson", "/auth%2Frefresh"):
        assert (await api.client.get(path)).status_code == 401, path
    counted = api.process.metrics.registry.get_sample_value(
        "pulse_http_request_duration_seconds_count",
        {"method": "GET", "path_template": "/livez", "status_code": "401"},
    )
    assert counted == 2
    assert (await api.client.get("/livez")).status_code == 200
    assert (await api.client.get("/livez?x=%6C")).status_code == 200


async def test_the_documentation_needs_nothing_but_this_server(api: Api) -> None:
    """The page, every file that it names and the document load without a token, and the policy admits only these."""
    response = await api.client.get("/docs")
    page, policy = response.text, response.headers["content-security-policy"]
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    assert (response.headers["cache-control"], "unsafe" in policy) == ("no-store", False)
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'; ")
    assert re.findall(r"<style\b|\bstyle=|\son\w+=|<script(?! src=)|url\(|@import|//", page) == []
    named = {*re.findall(r'(?:src|href)="([^"]*)"', page)} - {"data:,"}
    assert {address.partition("?")[0] for address in named} == {
        f"docs/{name}" for name in ("swagger-ui.css", "swagger-ui-bundle.js", "start.js")
    }
    for address in named:
        asset = await api.client.get(f"/{address}")
        assert asset.status_code == 200
        assert asset.headers["content-type"].startswith("text/css" if ".css" in address else "text/javascript")
        assert asset.headers["cache-control"] == "public, max-age=31536000, immutable"
        assert address.endswith(f"?v={hashlib.sha256(asset.content).hexdigest()[:16]}")
        assert (await api.client.head(f"/{address}")).status_code == 200
    start = await api.client.get("/docs/start.js")
    [document] = re.findall(r'url: "([^"]*)"', start.text)
    assert (await api.client.get(f"/{document}")).json()["openapi"].startswith("3.")


async def test_documentation_and_metrics_can_be_closed(app_url: str, conn: asyncpg.Connection) -> None:
    await seed.tenant(conn)
    async with open_api(app_url, serve_docs=False, serve_metrics=False) as api:
        for path in ("/docs", "/docs/start.js", "/openapi.json", "/metrics", "/redoc"):
            assert_problem(await api.call("GET", path), 404)
            assert (await api.client.get(path)).status_code in (401, 404)
        assert (await api.client.get("/readyz")).status_code == 200
    settings = EvaluatorSettings(database_url=NOWHERE, port=free_port(), serve_metrics=False)
    process = Process(settings=settings, metrics=ProcessMetrics("evaluator_iot"))
    async with running(process), httpx.AsyncClient(base_url=f"http://127.0.0.1:{settings.port}") as client:
        assert (await client.get("/livez")).status_code == 200
        closed = await client.get("/metrics")
        assert closed.status_code == 404
        assert_secured([(name.lower(), value) for name, value in closed.headers.raw])
        assert (await client.get("/livez", headers={"Host": "evil.example"})).status_code == 421


@asynccontextmanager
async def running(process: Process) -> AsyncIterator[None]:
    """Yield a process that serves only its status."""
    stop = asyncio.Event()
    server = asyncio.create_task(serve_process(process, status_app(process), stop=stop))
    try:
        await until(lambda: answers(process.settings.port))
        yield
    finally:
        stop.set()
        await server


@pytest.mark.parametrize(
    ("scheme", "host", "origin", "is_good"),
    [
        ("http", "api.test", "http://api.test", True),
        ("http", "api.test:80", "http://api.test", True),
        ("http", "api.test:8081", "http://api.test:8081", True),
        ("https", "api.test", "https://api.test", True),
        ("https", "API.test", "https://api.test:443", True),
        ("https", "api.test", "http://api.test", False),
        ("http", "api.test", "https://api.test", False),
        ("https", "api.test:443", "http://api.test:443", False),
        ("http", "api.test", "http://api.test:8081", False),
        ("http", "api.test", "http://api.test@evil.test", False),
        ("http", "api.test", "http://evil.test/api.test", False),
        ("http", "api.test", "http://api.test/", False),
        ("http", "api.test", "null", False),
        ("http", "api.test", "", False),
        ("http", "api.test", "http://[", False),
        ("http", "api.test:x", "http://api.test:x", False),
        ("http", "", "http://", False),
    ],
)
def test_a_page_of_this_site_has_its_scheme_name_and_port(scheme: str, host: str, origin: str, is_good: bool) -> None:
    headers = Headers((), ("pulse_session=x",), (), host, origin, None, scheme)
    assert isinstance(find_token(headers, "POST"), Refusal) is not is_good


async def test_only_a_trusted_proxy_can_declare_https(app_url: str, conn: asyncpg.Connection) -> None:
    await seed.tenant(conn)
    cookie = {"Cookie": f"pulse_session={token()}", "Origin": "https://api.test"}
    for number, (trusted, forwarded, is_https) in enumerate(
        [
            (("203.0.113.0/24",), "https", True),
            (("203.0.113.0/24",), "http, HTTPS", True),
            (("203.0.113.0/24",), "https, http", False),
            (("203.0.113.0/24",), "httpsx", False),
            (("198.51.100.0/24",), "https", False),
            ((), "https", False),
        ]
    ):
        async with open_api(app_url, trusted_proxies=trusted) as api:
            headers = {**cookie, "X-Forwarded-Proto": forwarded}
            response = await api.client.post(DEVICES, json={"device_id": f"p{number}"}, headers=headers)
        assert (response.status_code == 201) is is_https, (trusted, forwarded, response.text)
        assert ("strict-transport-security" in response.headers) is is_https


async def certificate_of(port: int, ca: PrivateCa, name: str = "localhost") -> tuple[bytes, asyncio.StreamWriter]:
    """Return a new connection and the certificate that it received."""
    context = ssl.create_default_context(cafile=ca.file)
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname=name)
    shown: bytes = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    return shown, writer


async def test_certificates_are_replaced_without_ending_connections(tmp_path: Path) -> None:
    ca = PrivateCa(tmp_path)
    pem = tmp_path / "server.pem"
    pem.write_bytes(ca.certificate("localhost", "127.0.0.1").read_bytes())
    settings = EvaluatorSettings(
        database_url=NOWHERE, port=free_port(), metrics_port=free_port(), tls_cert_file=pem, tls_key_file=pem
    )
    process = Process(settings=settings, metrics=ProcessMetrics("evaluator_iot"))
    tls = ServerTls(pem, pem)
    assert tls.context.minimum_version == ssl.TLSVersion.TLSv1_2
    async with running(process):
        context = ssl.create_default_context(cafile=ca.file)
        async with httpx.AsyncClient(verify=context, base_url=f"https://127.0.0.1:{settings.port}") as client:
            response = await client.get("/livez")
            assert_secured([(name.lower(), value) for name, value in response.headers.raw], scheme="https")
            metrics = await client.get(f"https://127.0.0.1:{settings.metrics_port}/metrics")
            assert metrics.status_code == 200
            old = context_of(ca)
            with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
                old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
            old.set_ciphers("ALL:@SECLEVEL=0")
            with pytest.raises((ssl.SSLError, ConnectionResetError)):
                await asyncio.open_connection("127.0.0.1", settings.port, ssl=old, server_hostname="localhost")
        with pytest.raises(httpx.TransportError):
            await httpx.AsyncClient().get(f"http://127.0.0.1:{settings.port}/livez")


def context_of(ca: PrivateCa) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=ca.file)


async def test_a_changed_certificate_counts_from_the_next_connection_on(tmp_path: Path) -> None:
    """The test checks the files by hand; a half replaced pair keeps the old certificate."""
    ca = PrivateCa(tmp_path)
    cert, key = tmp_path / "tls.crt", tmp_path / "tls.key"

    def put(path: Path, source: Path) -> None:
        other = path.with_suffix(".new")
        other.write_bytes(source.read_bytes())
        other.replace(path)

    first = ca.certificate("localhost")
    put(cert, first)
    put(key, first)
    tls = ServerTls(cert, key)

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            writer.write(line)

    server = await asyncio.start_server(echo, "127.0.0.1", 0, ssl=tls.context)
    port = server.sockets[0].getsockname()[1]
    context = context_of(ca)
    reader, living = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname="localhost")
    before, one = await certificate_of(port, ca)
    assert not tls.renew()
    second = ca.certificate("localhost")
    put(cert, second)
    assert not tls.renew()  # the key is still the first one's
    half, two = await certificate_of(port, ca)
    put(key, second)
    assert tls.renew()
    after, three = await certificate_of(port, ca)
    assert before == half != after
    key.unlink()
    assert not tls.renew()
    key.write_text("no key")
    assert not tls.renew()
    again, four = await certificate_of(port, ca)
    assert again == after
    living.write(b"still here\n")
    assert await reader.readline() == b"still here\n"
    for writer in (living, one, two, three, four):
        writer.close()
    server.close()


def test_certificates_that_cannot_be_used_end_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    good = PrivateCa(tmp_path).certificate("localhost")
    wrong = tmp_path / "wrong.pem"
    wrong.write_text("no certificate")
    for cert, key in ((tmp_path / "missing", good), (good, tmp_path / "missing"), (wrong, good), (good, wrong)):
        with pytest.raises(BadCertificate) as fault:
            ServerTls(cert, key)
        assert str(tmp_path) in str(fault.value)
    for name in ("TLS_CERT_FILE", "TLS_KEY_FILE"):
        with monkeypatch.context() as patch:
            patch.setenv("PULSE_DATABASE_URL", NOWHERE)
            patch.setenv(f"PULSE_{name}", str(good))
            with pytest.raises(SystemExit):
                EvaluatorSettings.load()
        assert "PULSE_TLS_KEY_FILE: needs PULSE_TLS_CERT_FILE" in capsys.readouterr().err


def test_the_environment_of_production_is_valid(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = (ROOT / "deploy" / "production" / "ui_iot.env").read_text(encoding="utf-8").splitlines()
    monkeypatch.setenv("PULSE_DATABASE_URL", NOWHERE)
    for line in lines:
        if not line.startswith("#"):
            name, _, value = line.partition("=")
            monkeypatch.setenv(name, value)
    settings = UiSettings.load()
    assert (settings.metrics_port, settings.serve_docs, settings.allowed_hosts) == (9081, False, ("pulse.example.com",))
    assert {name.partition("=")[0].removeprefix("PULSE_").lower() for name in lines if not name.startswith("#")} <= set(
        UiSettings.model_fields
    )
