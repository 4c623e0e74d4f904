"""Each process of the stack gets its own role, its own port, and only the secrets that it needs."""

from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import httpx
import orjson
import pytest

from services.cli.home import Home
from services.local.postgres.server import EmbeddedPostgres
from services.local.stack.hints import checks
from services.local.stack.roster import FLEET, SERVICES, SINK, Ports, Roster
from services.local.stack.supervise import Spec
from services.shared import settings
from tests.support.wait import until

URL = "postgresql://pulse_app@/pulse?host=/run&port=5432"


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(trust_env=False) as made:
        yield made


@pytest.fixture
def roster(tmp_path: Path, client: httpx.AsyncClient) -> Roster:
    return Roster(Home(tmp_path), Ports(8080), client, embedded=True)


async def environment(spec: Spec) -> Mapping[str, str]:
    """Return the environment of the process that the spec starts."""
    return (await spec.command()).env


def test_ports_are_those_of_the_settings() -> None:
    """A service that is started alone uses the stack's port."""
    classes = (
        settings.UiSettings,
        settings.EvaluatorSettings,
        settings.DispatcherSettings,
        settings.DeliverySettings,
        settings.OpsSettings,
        settings.ExporterSettings,
    )
    assert {one.service: one.model_fields["port"].default for one in classes} == {n: Ports(8080)[n] for n in SERVICES}
    assert Ports(9000)[SINK] == 9007
    assert Ports(9000, "0.0.0.0").url("ui_iot") == "http://127.0.0.1:9001"
    assert Ports(9000, "::1").url("ui_iot") == "http://[::1]:9001"


async def test_api_processes_share_a_port_and_no_metrics_port(tmp_path: Path, client: httpx.AsyncClient) -> None:
    ports = Ports(9000, ui_processes=3)
    roster = Roster(Home(tmp_path), ports, client, embedded=True)
    names = ["ui_iot", "ui_iot-2", "ui_iot-3"]
    specs = [roster.service(name, database_url=URL, demo=False) for name in names]
    environments = [await environment(spec) for spec in specs]
    assert {(env["PULSE_PORT"], env["PULSE_REUSE_PORT"]) for env in environments} == {("9001", "true")}
    assert [env["PULSE_METRICS_PORT"] for env in environments] == ["9011", "9012", "9013"]
    targets = orjson.loads(environments[0]["PULSE_HEALTH_TARGETS"])
    assert [targets[name] for name in names] == [f"http://127.0.0.1:901{number}" for number in (1, 2, 3)]
    assert set(targets) == {*SERVICES, *names}
    assert "PULSE_REUSE_PORT" not in await environment(roster.service("dispatcher", database_url=URL, demo=False))


async def test_the_stop_takes_at_most_ten_seconds_even_when_everything_hangs(roster: Roster, tmp_path: Path) -> None:
    """The fleet stops first, then all services together, then sink and database. Each has time to end."""
    services = [roster.service(name, database_url=URL, demo=True) for name in SERVICES]
    groups = (
        [roster.fleet(rate=1)],
        services,
        [roster.sink(secret="s"), roster.postgres(EmbeddedPostgres(tmp_path))],
    )
    waits = [max(sum(seconds for _, seconds in spec.stop_signals) for spec in group) for group in groups]
    assert sum(waits) <= 10.0
    assert min(spec.stop_signals[0][1] for group in groups for spec in group) >= 1.5


async def test_a_service_gets_its_settings_and_no_other_secrets(
    roster: Roster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The caller's variables are passed on, except those for migrations and for Postgres clients."""
    monkeypatch.setenv("PULSE_LOG_LEVEL", "DEBUG")
    monkeypatch.setenv("PULSE_PORT", "1")
    monkeypatch.setenv("PULSE_MIGRATION_URL", "postgresql://postgres:secret@db/pulse")
    monkeypatch.setenv("PULSE_APP_PASSWORD", "secret")
    monkeypatch.setenv("PGTZ", "")
    env = await environment(roster.service("dispatcher", database_url=URL, demo=False))
    assert (env["PULSE_DATABASE_URL"], env["PULSE_PORT"], env["PULSE_LOG_LEVEL"]) == (URL, "8083", "DEBUG")
    assert not {"PULSE_MIGRATION_URL", "PULSE_APP_PASSWORD", "PGTZ", "PULSE_ALLOW_PRIVATE_DESTINATIONS"} & set(env)
    targets = orjson.loads(env["PULSE_HEALTH_TARGETS"])
    assert targets["exporter"] == "http://127.0.0.1:8086"
    assert "secret" not in str((await roster.sink(secret="whsec_x").command()).argv)


async def test_the_embedded_server_is_the_services_only_database(
    roster: Roster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Variables that name another database are ignored."""
    for name in ("LISTEN_URL", "OPS_DATABASE_URL", "EXPORTER_DATABASE_URL"):
        monkeypatch.setenv(f"PULSE_{name}", "postgresql://db.example/pulse")
    for service in ("ops_worker", "exporter"):
        env = await environment(roster.service(service, database_url=URL, demo=False))
        assert "db.example" not in str(env)


async def test_a_database_of_the_callers_keeps_his_variables(
    tmp_path: Path, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The caller's URL may need PGPASSFILE and PGSSLROOTCERT."""
    monkeypatch.setenv("PGSSLROOTCERT", "/certs/root.crt")
    monkeypatch.setenv("PULSE_LISTEN_URL", "postgresql://direct/pulse")
    roster = Roster(Home(tmp_path), Ports(8080), client, embedded=False)
    env = await environment(roster.service("ui_iot", database_url=URL, demo=False))
    assert env["PGSSLROOTCERT"] == "/certs/root.crt"
    assert env["PULSE_LISTEN_URL"] == "postgresql://direct/pulse"


async def test_audit_events_wait_below_the_home(
    roster: Roster, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Each stack has its own spool because it has its own database. A directory from the environment overrides it."""
    monkeypatch.setenv("PULSE_AUDIT_SPOOL_DIR", "/var/spool/pulse")
    env = await environment(roster.service("ui_iot", database_url=URL, demo=False))
    assert env["PULSE_AUDIT_SPOOL_DIR"] == "/var/spool/pulse"
    monkeypatch.delenv("PULSE_AUDIT_SPOOL_DIR")
    env = await environment(roster.service("ui_iot", database_url=URL, demo=False))
    assert env["PULSE_AUDIT_SPOOL_DIR"] == str(tmp_path / "audit" / "spool")


@pytest.mark.parametrize("name", ["PULSE_OIDC_ISSUER", "PULSE_JWKS_URL", "PULSE_JWKS_FILE"])
async def test_with_an_identity_provider_our_key_opens_nothing(
    roster: Roster, monkeypatch: pytest.MonkeyPatch, name: str, tmp_path: Path
) -> None:
    """Local tokens are accepted only without a provider."""
    assert "PULSE_JWKS_FILE" in await environment(roster.service("ui_iot", database_url=URL, demo=True))
    monkeypatch.setenv(name, "https://id.example.com")
    env = await environment(roster.service("ui_iot", database_url=URL, demo=True))
    assert env.get("PULSE_JWT_ISSUER") != "pulse-local"
    assert env.get("PULSE_JWKS_FILE") != str(tmp_path / "keys" / "jwks.json")


async def test_ready_is_what_readyz_says(tmp_path: Path) -> None:
    """A process that answers 503 is not ready. A process without a port is ready when it runs."""
    answers = iter([503, 200])
    transport = httpx.MockTransport(lambda request: httpx.Response(next(answers) if request.url.port == 8083 else 404))
    async with httpx.AsyncClient(transport=transport) as client:
        roster = Roster(Home(tmp_path), Ports(8080), client, embedded=True)
        spec = roster.service("dispatcher", database_url=URL, demo=False)
        assert not await spec.is_ready(1)
        assert await until(lambda: spec.is_ready(1))
        assert await roster.fleet(rate=1).is_ready(1)
        assert roster.fleet(rate=1).name == FLEET


def test_what_to_paste_shows_the_token_of_metrics_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hint is shown if a token protects /metrics. The token's value is never printed."""
    home = Home(tmp_path)

    def asking() -> list[str]:
        printed = [line for _, lines in checks(Ports(8080), home, demo=True) for line in lines]
        return [line for line in printed if "/metrics" in line]

    monkeypatch.delenv("PULSE_METRICS_TOKEN", raising=False)
    assert [line for line in asking() if "Bearer" in line] == []
    monkeypatch.setenv("PULSE_METRICS_TOKEN", "sixteen-secret-characters")
    assert len(asking()) == 2
    for line in asking():
        assert '-H "Authorization: Bearer $PULSE_METRICS_TOKEN"' in line
        assert "sixteen" not in line
