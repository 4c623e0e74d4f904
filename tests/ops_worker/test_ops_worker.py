"""The ops worker as a process: every timer runs, a failing one stops no other, SIGTERM ends it cleanly."""

from pathlib import Path
from typing import Any

import asyncpg
import orjson
import pytest

from services.shared.settings import OpsSettings
from tests.support.escalation_policy import TRACE, let_pass, open_alert, policy
from tests.support.health_target import HealthTarget
from tests.support.processes import Running, ready_service
from tests.support.wait import until

OPERATIONS = (
    "end_sessions",
    "seal_audit",
    "anchor_checkpoint",
    "drop_audit_months",
    "run_escalations",
    "detect_attacks",
    "check_health",
    "set_limits",
    "collect_metrics",
    "ensure_partitions",
    "prune",
)

MODULE = "services.ops_worker"
TIMERS = (
    "attack_detection_seconds",
    "health_seconds",
    "service_metrics_seconds",
    "partition_seconds",
    "retention_seconds",
    "poll_seconds",
)
OFTEN = dict.fromkeys(TIMERS, "0.05")


def only(target: HealthTarget) -> str:
    """Return the setting that limits the monitor to this service."""
    return orjson.dumps({"dispatcher": target.url.removesuffix("/health")}).decode()


def lines(worker: Running, start: str) -> list[dict[str, Any]]:
    """Return the log lines so far whose message has this prefix."""
    return [line for line in worker.lines if line.get("message", "").startswith(start)]


async def test_every_timer_runs_and_is_measured(conn: asyncpg.Connection, ops_url: str) -> None:
    """One start runs partitions, health, samples and an escalation, and ends cleanly."""
    alert_id = await open_alert(conn, await policy(conn, (5, "team")))
    await let_pass(conn, 6)
    async with (
        HealthTarget() as target,
        ready_service(MODULE, ops_url, health_targets=only(target), **OFTEN) as worker,
    ):
        await until(lambda: conn.fetchval("select count(*) from service_health where status = 'up'"))
        await until(lambda: conn.fetchval("select count(*) from service_metrics"))
        await until(lambda: conn.fetchval("select to_regclass('telemetry_' || to_char(now(), 'YYYYMMDD'))"))
        await until(lambda: lines(worker, "escalation escalated"))
        metrics = (await worker.get("/metrics")).text
        health = (await worker.get("/health")).json()
        assert await worker.stop() == 0

    line = lines(worker, "escalation escalated")[0]
    assert (line["trace_id"], line["alert_id"], line["service"]) == (TRACE, alert_id, "ops_worker")
    for operation in OPERATIONS:
        series = f'pulse_processing_duration_seconds_count{{operation="{operation}",service="ops_worker"}}'
        assert series in metrics
    assert 'pulse_db_pool_size{service="ops_worker"}' in metrics
    assert 'pulse_queue_depth{queue_name="escalations",service="ops_worker"}' in metrics
    assert (health["status"], health["service"], health["counters"]["errors"]) == ("ok", "ops_worker", 0)
    assert {request[":request"] for request in target.requests} == {"GET /health HTTP/1.1"}


async def test_a_failing_timer_stops_no_other(conn: asyncpg.Connection, ops_url: str) -> None:
    """Samples, partitions and retention fail. Health and escalation continue, and the failures are logged."""
    for broken in ("record_service_metrics", "ensure_partitions", "prune"):
        await conn.execute(f"alter function ops.{broken} rename to {broken}_is_gone")
    alert_id = await open_alert(conn, await policy(conn, (5, "team"), (7, "lead")))
    async with (
        HealthTarget() as target,
        ready_service(MODULE, ops_url, health_targets=only(target), **OFTEN) as worker,
    ):
        await until(lambda: {line["operation"] for line in lines(worker, "pass failed")} == set(OPERATIONS[-3:]))
        checked_at = await until(lambda: conn.fetchval("select checked_at from service_health"))
        await until(lambda: conn.fetchval("select checked_at > $1 from service_health", checked_at))
        await let_pass(conn, 10)
        await until(lambda: conn.fetchval("select count(*) = 2 from alert_events where kind = 'escalated'"))
        assert await worker.is_ready()

    assert await conn.fetchval("select count(*) from alert_events where alert_id = $1", alert_id) == 3


@pytest.mark.slow
async def test_a_role_that_may_not_seal_is_reported(conn: asyncpg.Connection, app_url: str) -> None:
    """Each failed pass logs one line with the setting and no traceback. The other timers continue."""
    async with (
        HealthTarget() as target,
        ready_service(MODULE, app_url, health_targets=only(target), seal_seconds="0.05", **OFTEN) as worker,
    ):
        refused = {
            "seal_audit": "read_head",
            "verify_audit": "read_head",
            "drop_audit_months": "set_retention",
            "detect_attacks": "detect_attacks",
            "end_sessions": "end_overdue_sessions",
        }
        await until(lambda: {line["operation"] for line in lines(worker, "pass failed")} == set(refused))
        checked_at = await until(lambda: conn.fetchval("select checked_at from service_health"))
        await until(lambda: conn.fetchval("select checked_at > $1 from service_health", checked_at))
        assert await worker.stop() == 0
    failed = lines(worker, "pass failed")
    assert {line["message"] for line in failed} == {
        f"pass failed: InsufficientPrivilegeError: permission denied for function {function}:"
        " PULSE_OPS_DATABASE_URL must be a login with the rights of pulse_ops"
        for function in refused.values()
    }
    assert not [line for line in worker.lines if "exception" in line or "not_json" in line]


async def test_a_key_that_cannot_be_read_is_reported_once(
    conn: asyncpg.Connection, ops_url: str, tmp_path: Path
) -> None:
    """The sealer reports it, and again after a change of state. No other loop fails."""
    key, other = tmp_path / "signing.key", tmp_path / "other"
    key.touch(0o600)
    often = OFTEN | {"seal_seconds": "0.05", "audit_verify_seconds": "0.05"}
    series = [
        f'pulse_worker_passes_total{{operation="{name}",service="ops_worker"}} '
        for name in ("seal_audit", "anchor_checkpoint", "verify_audit", "drop_audit_months")
    ]

    async def passes() -> list[float]:
        text = (await worker.get("/metrics")).text
        return [float(text.partition(start)[2].partition("\n")[0] or 0) for start in series]

    async def went_on(before: list[float]) -> bool:
        return all(now > then + 1 for now, then in zip(await passes(), before, strict=True))

    async def is_in(state: str) -> bool:
        return bool((await worker.get("/health")).json()["audit_sealing"]["state"] == state)

    async with (
        HealthTarget() as target,
        ready_service(MODULE, ops_url, health_targets=only(target), audit_key_file=str(key), **often) as worker,
    ):
        await until(lambda: is_in("refused"))
        before = await passes()
        await until(lambda: went_on(before))
        key.unlink()  # nothing is sealed yet, so the sealer makes a key
        await until(lambda: is_in("sealing"))
        await until(lambda: conn.fetchval("select count(*) from audit.blocks"))
        valid = key.rename(other)
        key.touch(0o600)
        await until(lambda: is_in("refused"))
        again = await passes()
        await until(lambda: went_on(again))
        valid.rename(key)
        await until(lambda: is_in("sealing"))
        assert await worker.stop() == 0
    said = [line["message"] for line in lines(worker, "nothing is sealed") if "signing.key holds" in line["message"]]
    assert said == [f"nothing is sealed: {key} holds no Ed25519 key of a note"] * 2
    assert lines(worker, "pass failed") == []


@pytest.mark.slow
async def test_an_attack_becomes_an_alert_within_seconds(conn: asyncpg.Connection, ops_url: str) -> None:
    """With the default interval, finding, event and system alert exist within 10 s."""
    async with ready_service(MODULE, ops_url) as worker:
        await until(lambda: conn.fetchval("select checked_at > now() - interval '1 day' from audit.attack_detector"))
        await conn.execute(
            "insert into audit_log"
            " (timestamp, event_id, event_type, category, action, message, source_service, details)"
            " select clock_timestamp(), gen_random_uuid(), 'auth.login_failure', 'auth', 'login_failure', '', 'ui_iot',"
            ' \'{"reason": "invalid_token", "account": "acct_0123"}\' from generate_series(1, 30)'
        )
        await until(lambda: lines(worker, "attack suspected"), seconds=10)
    alert = await conn.fetchrow("select tenant_id, severity, trace_id from alerts where fingerprint like 'attack:%'")
    event = await conn.fetchrow("select actor_id, trace_id from audit_log where event_type = 'auth.attack_suspected'")
    assert tuple(alert) == ("system", "critical", event["trace_id"])
    assert event["actor_id"] == "ops_worker"
    assert lines(worker, "attack suspected")[0]["trace_id"] == event["trace_id"]


async def test_old_months_of_the_audit_trail_go(conn: asyncpg.Connection, ops_url: str, tmp_path: Path) -> None:
    """An event of 90 days ago starts in the default partition. Its month is created, sealed, proven and dropped."""
    await conn.execute(
        "insert into audit_log"
        " (timestamp, recorded_at, event_id, event_type, category, action, message, source_service)"
        " select at, at, gen_random_uuid(), 'rule.created', 'rule', 'created', 'm', 't'"
        " from (select now() - interval '90 days') old (at)"
    )
    month = await conn.fetchval("select to_char((now() - interval '90 days') at time zone 'UTC', 'YYYYMM')")
    settings = {"audit_retention_days": "30", "audit_anchor_dir": str(tmp_path), "seal_seconds": "0.05"}
    async with ready_service(MODULE, ops_url, **OFTEN, **settings) as worker:
        await until(lambda: conn.fetchval("select count(*) from audit.tombstones"), seconds=20)
        await until((tmp_path / "tombstones.log").exists)
        await until(lambda: conn.fetchval("select value < 5 from metrics.audit_retention_last_run_age_seconds"))
        assert await worker.stop() == 0
    assert await conn.fetchval("select to_regclass('audit_log_' || $1) is null", month)
    assert await conn.fetchval("select count(*) from audit_log where event_type = 'rule.created'") == 0
    assert f"tombstone {month[:4]}-{month[4:]}-01" in (tmp_path / "tombstones.log").read_text()
    dropped = await conn.fetchrow("select * from audit_log where event_type = 'audit.segment_dropped'")
    assert (dropped["actor_type"], dropped["actor_id"]) == ("service", "ops_worker")


def load(monkeypatch: pytest.MonkeyPatch, **variables: str) -> OpsSettings:
    """Return the settings of an environment."""
    for name, value in {"database_url": "postgresql://x/y", **variables}.items():
        monkeypatch.setenv(f"PULSE_{name.upper()}", value)
    return OpsSettings.load()


def test_its_own_login_goes_before_that_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """The ops worker prefers its own login in a shared environment, and otherwise uses the shared one."""
    assert load(monkeypatch).database_url == "postgresql://x/y"
    own = load(monkeypatch, ops_database_url="postgresql://pulse_ops@x/y")
    assert (own.database_url, own.listen_dsn) == ("postgresql://pulse_ops@x/y",) * 2


def test_the_targets_of_the_monitor(monkeypatch: pytest.MonkeyPatch) -> None:
    """The default is the six services behind the port base. Named targets replace them."""
    services = ("ui_iot", "evaluator_iot", "dispatcher", "delivery_worker", "ops_worker", "exporter")
    assert load(monkeypatch).status_urls == {
        name: f"http://127.0.0.1:{port}/health" for port, name in enumerate(services, start=8081)
    }
    assert load(monkeypatch, port_base="9000").status_urls["exporter"] == "http://127.0.0.1:9006/health"
    named = load(monkeypatch, health_targets='{"ui_iot": "http://10.0.0.7:81/", "other": "https://pulse.example/x"}')
    assert named.status_urls == {"ui_iot": "http://10.0.0.7:81/health", "other": "https://pulse.example/x/health"}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("health_targets", "{"),
        ("health_targets", "{}"),
        ("health_targets", '{"ui_iot": "file:///etc/passwd"}'),
        ("health_targets", '{"UI iot": "http://10.0.0.7"}'),
        ("health_seconds", "0"),
        ("telemetry_retention_days", "8"),
        ("audit_retention_days", "29"),
        ("audit_retention_days", "-1"),
        ("seal_lease_seconds", "60.1"),
        ("port_base", "65535"),
    ],
)
def test_a_bad_setting_is_one_line_and_status_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str, value: str
) -> None:
    """The line names the variable, and the process ends before anything starts."""
    with pytest.raises(SystemExit) as ended:
        load(monkeypatch, **{name: value})
    assert ended.value.code == 2
    message = capsys.readouterr().err
    assert message.startswith(f"ops_worker: PULSE_{name.upper()}")
    assert message.count("\n") == 1
