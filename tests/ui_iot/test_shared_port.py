"""Several processes on one port, each with its own metrics port."""

import asyncio
import signal
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import asyncpg
import httpx
import orjson
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics

from services.shared.settings import UiSettings
from tests.support import seed
from tests.support.api_client import EC, ISSUER, RSA, token
from tests.support.processes import Running, free_port, service
from tests.support.wait import until

DEVICES = "/api/v1/devices"
HEADERS = {"accept": "application/openmetrics-text; version=1.0.0"}
Counts = Counter[tuple[str, str]]


async def counts_at(client: httpx.AsyncClient, metrics_ports: Sequence[int]) -> list[Counts]:
    """Return the requests that each process counted, by template and status."""
    found = []
    for port in metrics_ports:
        text = (await client.get(f"http://127.0.0.1:{port}/metrics", headers=HEADERS)).text
        counts = Counts()
        for family in parse_openmetrics(text):  # type: ignore[no-untyped-call]  # the library's gap
            for sample in family.samples:
                if sample.name == "pulse_http_request_duration_seconds_count":
                    counts[sample.labels["path_template"], sample.labels["status_code"]] += int(sample.value)
        found.append(counts)
    return found


async def send(client: httpx.AsyncClient, saw: Counts, *, times: int = 8) -> None:
    """Send requests, each on its own connection, and count their answers as the client sees them."""
    good = {"authorization": f"Bearer {token()}"}
    requests = [(DEVICES, good), (DEVICES, {}), ("/nowhere", good)] * times
    answers = await asyncio.gather(*(client.get(path, headers=headers) for path, headers in requests))
    for answer in answers:
        saw[DEVICES if answer.url.path == DEVICES else "__unmatched__", str(answer.status_code)] += 1


async def is_ready(client: httpx.AsyncClient, process: Running, metrics_port: int) -> bool:
    """Ask on the metrics port, because the other process may answer on the shared one."""
    assert process.process.returncode is None, process.lines[-3:]
    try:
        return (await client.get(f"http://127.0.0.1:{metrics_port}/readyz")).status_code == 200
    except httpx.TransportError:
        return False


@pytest.mark.slow
async def test_the_sum_over_both_metrics_ports_is_what_the_clients_saw(
    conn: asyncpg.Connection, app_url: str, tmp_path: Path
) -> None:
    """The sum holds although one process is killed and a new one joins."""
    await seed.device(conn)
    (tmp_path / "jwks.json").write_bytes(orjson.dumps({"keys": [EC.public(), RSA.public()]}))
    settings = {"port": str(free_port()), "reuse_port": "true", "jwks_file": str(tmp_path / "jwks.json")}
    # No failure limit and no aggregated audit rows, because the client counts every answer.
    settings |= {"jwt_issuer": ISSUER, "auth_rate_limit_per_minute": "0", "audit_flood_rows_per_window": "0"}
    first_port, second_port, third_port = ports = (free_port(), free_port(), free_port())
    first, second, third = (service("services.ui_iot", app_url, metrics_port=str(port), **settings) for port in ports)
    limits = httpx.Limits(max_keepalive_connections=0)
    saw, alone = Counts(), Counts()
    async with (
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{settings['port']}", limits=limits, trust_env=False) as client,
        first as one,
        second as other,
    ):
        await until(lambda: is_ready(client, one, first_port), seconds=60)
        await until(lambda: is_ready(client, other, second_port), seconds=60)

        async def both_answered() -> bool:
            await send(client, saw)
            first, second = await counts_at(client, (first_port, second_port))
            return bool(first.total() and second.total())

        await until(both_answered)
        before, kept = await counts_at(client, (first_port, second_port))
        assert before + kept == saw

        assert await one.stop(signal.SIGKILL) == -signal.SIGKILL
        await send(client, alone)
        assert await counts_at(client, (second_port,)) == [kept + alone]

        async with third as successor:

            async def has_joined() -> bool:
                # A starting process accepts no request before it is ready, so none gets 503.
                await send(client, alone, times=2)
                return await is_ready(client, successor, third_port)

            await until(has_joined, seconds=60)
            still, new = await counts_at(client, (second_port, third_port))
            assert still + new == kept + alone
            assert {status for _, status in alone} == {"200", "401", "404"}
            assert await successor.stop() == 0
        assert (await client.get("/livez")).status_code == 200
        assert await other.stop() == 0
    refused = await conn.fetchval("select count(*) from audit_log where event_type = 'auth.login_failure'")
    assert refused == saw[DEVICES, "401"] + alone[DEVICES, "401"]


@pytest.mark.slow
async def test_refuses_a_port_that_is_not_shared(app_url: str) -> None:
    """Without the setting, and with another process's metrics port, the process exits with status 1."""
    port, metrics_port = free_port(), free_port()
    shared = {"port": str(port), "metrics_port": str(metrics_port), "reuse_port": "true"}
    async with service("services.ui_iot", app_url, **shared) as running:
        await until(running.is_ready, seconds=60)
        for settings, taken in (({"port": str(port)}, port), (shared, metrics_port)):
            async with service("services.ui_iot", app_url, **settings) as late:
                assert await asyncio.wait_for(late.process.wait(), 60) == 1
            assert any(f"cannot start: cannot listen on 127.0.0.1:{taken}" in line["message"] for line in late.lines)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("REUSE_PORT", "true", "PULSE_REUSE_PORT: needs PULSE_METRICS_PORT"),
        (
            "UI_WORKERS",
            "4",
            "PULSE_REUSE_PORT: replaces PULSE_UI_WORKERS: unset that, and start one process for each",
        ),
    ],
)
def test_names_the_setting_that_is_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str, value: str, message: str
) -> None:
    monkeypatch.setenv("PULSE_DATABASE_URL", "postgresql://nobody@localhost/none")
    monkeypatch.setenv(f"PULSE_{name}", value)
    with pytest.raises(SystemExit, match="2"):
        UiSettings.load()
    assert capsys.readouterr().err.startswith(f"ui_iot: {message}")
