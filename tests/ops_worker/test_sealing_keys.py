"""Keys of the sealed log: missing keys, hand-over, loss, and the related commands."""

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from prometheus_client import CollectorRegistry

from services.ops_worker.sealing.sealer import Sealer
from services.shared import db
from services.shared.sealed_log.key_file import KeyFile, render_key
from services.shared.sealed_log.note import SignerKey
from services.shared.write_once import write_once
from tests.support.audit_program import Pulse
from tests.support.exported import check, export
from tests.support.processes import Running, ready_service
from tests.support.sealed_log import SealedLog, make_sealer
from tests.support.wait import until


@pytest.fixture
async def log(conn: asyncpg.Connection, ops_pool: db.Pool, auditor_pool: db.Pool, tmp_path: Path) -> SealedLog:
    """A sealed log with key and checkpoints in the local stack's directories."""
    made = SealedLog(conn, ops_pool, auditor_pool, tmp_path / "audit", make_sealer(tmp_path / "audit"))
    await made.write(3)
    await made.seal()
    return made


@pytest.fixture
def pulse(tmp_path: Path, role_url: Callable[[str], str], monkeypatch: pytest.MonkeyPatch) -> Pulse:
    """`pulse audit` on the machine of the ops worker."""
    made = Pulse(tmp_path, role_url("pulse_auditor"))
    made.settings = {"PULSE_OPS_DATABASE_URL": role_url("pulse_ops")}
    return made


def stranger(path: Path, holder: str = "two") -> Sealer:
    """Return a sealer whose key directory is empty."""
    return Sealer(holder, KeyFile(path / "signing.key", "pulse.test/audit"), rows_per_pass=1000, lease_seconds=10.0)


async def test_a_worker_without_the_key_makes_none(
    log: SealedLog, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It reports the missing key once, in its metric and in /health, without an alarm, and seals once it has it."""
    await log.sealer.release(log.writer)
    await log.write(2)
    other = stranger(tmp_path / "empty")
    registry = CollectorRegistry()
    other.status.show_in(registry)
    for _ in range(3):
        assert await other.seal(log.writer) == 0
    key_id = log.sealer.keys.load().verifier.key_id
    (line,) = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert f"the log was signed by key {key_id}" in line.getMessage()
    assert "`pulse audit rotate-key --lost`" in line.getMessage()
    assert not (tmp_path / "empty").exists()
    assert registry.get_sample_value("pulse_audit_sealing_refused", {"reason": "no_key"}) == 1
    assert other.status.as_dict()["reason"] == "no_key"
    assert await log.conn.fetchval("select count(*) from alerts where fingerprint = 'audit:log'") == 0
    assert await log.conn.fetchval("select count(*) from audit_log where event_type = 'audit.log_broken'") == 0
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "signing.key").write_bytes(log.sealer.keys.path.read_bytes())
    (tmp_path / "empty" / "signing.key").chmod(0o600)
    assert await other.seal(log.writer) == 2
    assert registry.get_sample_value("pulse_audit_sealing_refused", {"reason": "no_key"}) == 0
    assert (await log.verify()).faults == []


async def test_a_worker_with_a_key_of_its_own_does_not_seal_either(log: SealedLog, tmp_path: Path) -> None:
    """An older Pulse made one key for each container."""
    await log.sealer.release(log.writer)
    other = stranger(tmp_path / "own")
    other.keys.load()
    await log.write(1)
    assert await other.seal(log.writer) == 0
    assert other.status.reason == "no_key"
    assert await log.sealer.seal(log.writer) == 1


async def test_a_worker_without_the_key_is_quiet_while_another_seals(
    log: SealedLog, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It logs one line at level info while the holder works or restarts."""
    caplog.set_level(logging.INFO)
    other = stranger(tmp_path / "empty")
    for _ in range(3):
        await log.write(1)
        await other.seal(log.writer)
        await log.seal()
    await log.sealer.release(log.writer)
    await other.seal(log.writer)
    ours = [record for record in caplog.records if record.name == "services.ops_worker.sealing.status"]
    assert [record.levelno for record in ours] == [logging.INFO]
    assert other.status.as_dict()["state"] == "standby"


async def test_of_two_first_workers_one_makes_the_key(
    conn: asyncpg.Connection, ops_pool: db.Pool, tmp_path: Path
) -> None:
    """The other worker behaves as one without the key."""
    await conn.execute("select audit.write(array[audit.event('acme', 'alert.opened')])")
    sealers = [stranger(tmp_path / name, name) for name in ("a", "b")]
    for _ in range(4):
        await asyncio.gather(*(sealer.seal(ops_pool) for sealer in sealers))
    keys = [sealer.keys.path.exists() for sealer in sealers]
    assert sorted(keys) == [False, True]
    assert sorted(sealer.status.state for sealer in sealers) == ["sealing", "standby"]
    assert await conn.fetchval("select count(*) from audit.signing_keys") == 1


async def test_a_key_of_another_log_name_is_an_error(log: SealedLog) -> None:
    renamed = Sealer("one", KeyFile(log.sealer.keys.path, "another/name"), rows_per_pass=10, lease_seconds=10.0)
    assert await renamed.seal(log.writer) == 0
    assert renamed.status.reason == "key_fault"
    assert "PULSE_AUDIT_LOG_NAME is another/name, and the key in" in renamed.status.message


@pytest.mark.slow
async def test_a_rotated_key_is_handed_over(log: SealedLog, pulse: Pulse) -> None:
    """Two rotations: the log records the order of keys, and later signatures of the old one are refused."""
    old = log.sealer.keys.load()
    await pulse("rotate-key")
    await pulse("rotate-key")
    new = log.sealer.keys.load()
    await log.write(2)
    await log.seal()
    await log.seal()
    done = await pulse("verify", status=3)
    assert f"The log is signed by key {new.verifier.key_id} since" in done.stdout
    assert f"in place of {old.verifier.key_id}, which handed over to it" in done.stdout
    status, said = await check(log, await export(log))
    assert (status, f"signed by key {new.verifier.key_id}" in said) == (0, True)
    await sign_newest_with(log, old)
    assert f"signed by key {old.verifier.key_id}, which another key had replaced" in str((await log.verify()).faults[0])


@pytest.mark.slow
async def test_a_lost_key_is_replaced_on_record(log: SealedLog, pulse: Pulse, tmp_path: Path) -> None:
    """The command creates the new key. The log, the trail and verify name the operator."""
    old = log.sealer.keys.load()
    for file in log.home.glob("signing.key*"):
        file.unlink()
    await log.sealer.release(log.writer)
    refused = await pulse("rotate-key", status=1)
    assert "`pulse audit rotate-key --lost`" in refused.stderr
    done = await pulse("rotate-key", "--lost", "--reason", "the volume is gone")
    new = log.sealer.keys.load()
    assert str(new.verifier) in done.stdout
    await log.write(2)
    assert await log.sealer.seal(log.writer) >= 2
    await log.seal()
    shown = (await pulse("verify", status=3)).stdout
    assert f"in place of {old.verifier.key_id}, which was reported lost: the volume is gone." in shown
    event = await log.conn.fetchrow("select * from audit_log where event_type = 'audit.key_changed'")
    assert (event["entity_id"], event["actor_type"]) == (new.verifier.key_id, "user")
    await log.sealer.release(log.writer)
    again = await pulse("rotate-key", "--lost", "--reason", "again", status=1)
    assert "is not lost" in again.stderr
    # A sealer with the old key cannot continue the log.
    thief = stranger(tmp_path / "thief", "thief")
    log.sealer.keys.path.rename(tmp_path / "signing.key")
    write_once(tmp_path / "thief" / "signing.key", render_key(old))
    await log.sealer.release(log.writer)
    assert await thief.seal(log.writer) == 0
    assert thief.status.reason == "no_key"


@pytest.mark.slow
async def test_continue_on_the_command_line(log: SealedLog, pulse: Pulse) -> None:
    """It names missing parts, and changes nothing if the database did not move."""
    await log.sealer.release(log.writer)
    for arguments, words in (
        (["--from-checkpoint", "1", "--reason", "r"], "nothing to continue"),
        (["--from-checkpoint", "7", "--reason", "r"], "ends at checkpoint 1, not 7"),
        (["--from-checkpoint", "/nowhere", "--reason", "r"], "there is no file /nowhere"),
        (["--from-checkpoint", "1", "--reason", " "], "--reason is empty"),
    ):
        assert words in (await pulse("continue", *arguments, status=1)).stderr
    as_app = {"PULSE_OPS_DATABASE_URL": pulse.settings["PULSE_OPS_DATABASE_URL"].replace("pulse_ops", "pulse_auditor")}
    refused = await pulse("continue", "--from-checkpoint", "1", "--reason", "r", status=1, **as_app)
    assert "sealing needs pulse_ops" in refused.stderr
    # This is another server.
    await log.conn.execute("update audit.epochs set database_oid = 1")
    await log.conn.execute("update audit.epochs set row_xmin = xmin::text::bigint")
    await log.conn.execute("update audit.epochs set row_xmin = xmin::text::bigint")
    [kept] = log.checkpoints.glob("checkpoints-*.log")
    done = await pulse("continue", "--from-checkpoint", str(kept), "--reason", "moved to db-2")
    assert "after restore: moved to db-2 (by cli:" in done.stdout
    await log.write(1)
    await log.seal()
    assert "after restore: moved to db-2" in (await pulse("verify", status=3)).stdout


@pytest.mark.slow
async def test_a_process_without_the_key_does_everything_else(log: SealedLog, ops_url: str) -> None:
    """A container without a volume is ready, logs one line, and shows it in /health and /metrics."""
    await log.sealer.release(log.writer)
    await log.write(2)
    async with ready_service("services.ops_worker", ops_url, seal_seconds="0.05", partition_seconds="0.05") as worker:
        health = await until(lambda: audit_sealing(worker, "refused"))
        assert health["reason"] == "no_key"
        assert f"the log was signed by key {log.sealer.keys.load().verifier.key_id}" in health["message"]
        await until(lambda: log.conn.fetchval("select count(*) > 0 from audit_log where event_type = 'system.started'"))
        assert (await worker.get("/readyz")).status_code == 200
        assert 'pulse_audit_sealing_refused{reason="no_key"} 1.0' in (await worker.get("/metrics")).text
        async with ready_service(
            "services.ops_worker", ops_url, seal_seconds="0.05", audit_key_file=str(log.sealer.keys.path)
        ) as holder:
            await until(lambda: audit_sealing(holder, "sealing"))
            await until(lambda: audit_sealing(worker, "standby"))
            await until(lambda: log.conn.fetchval("select audit._unsealed_since() is null"))
            assert await holder.stop() == 0
        assert await worker.stop() == 0
    assert len([line for line in worker.lines if line.get("level", "").lower() == "error"]) == 1
    assert await log.conn.fetchval("select count(*) from alerts where fingerprint = 'audit:log'") == 0


async def test_the_process_finds_an_edit_by_itself(log: SealedLog, ops_url: str) -> None:
    """Without a request, the alert opens and /health names the block."""
    await log.sealer.release(log.writer)
    settings = {
        "audit_key_file": str(log.sealer.keys.path),
        "audit_anchor_dir": str(log.checkpoints),
        "audit_verify_seconds": "0.05",
    }
    async with ready_service("services.ops_worker", ops_url, **settings) as worker:
        await until(lambda: log.conn.fetchval("select count(*) = 2 from audit.verifications where fault_count = 0"))
        await log.conn.execute("set session_replication_role = replica")
        await log.conn.execute("update audit_log set message = 'x' where xid = (select min(xid) from audit_log)")
        await until(lambda: log.conn.fetchval("select count(*) = 1 from alerts where fingerprint = 'audit:log'"))
        shown = await until(lambda: verification(worker))
        assert "block 0 " in shown["day"]["message"]
        assert (await worker.get("/readyz")).status_code == 200


async def audit_sealing(worker: Running, state: str) -> dict[str, Any] | None:
    """Return the part of /health about sealing, once it is in this state."""
    shown: dict[str, Any] = (await worker.get("/health")).json()["audit_sealing"]
    return shown if shown["state"] == state else None


async def verification(worker: Running) -> dict[str, Any] | None:
    """Return the part of /health about verification, once it has a finding."""
    shown: dict[str, Any] = (await worker.get("/health")).json()["audit_verification"]
    return shown if shown.get("day", {}).get("faults") else None


async def sign_newest_with(log: SealedLog, key: SignerKey) -> None:
    """Replace the newest checkpoint's signature, as an attacker with an old key would."""
    note = await log.conn.fetchval("select note from audit.checkpoints order by tree_size desc limit 1")
    forged = key.sign(note.rpartition("\n\n")[0] + "\n")
    await log.conn.execute(
        "update audit.checkpoints set note = $1, key_id = $2"
        " where tree_size = (select max(tree_size) from audit.checkpoints)",
        forged,
        key.verifier.key_id,
    )
    for file in log.checkpoints.iterdir():
        file.unlink()
