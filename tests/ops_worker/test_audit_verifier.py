"""Verification of the sealed log by the ops worker: findings, reads and the lease."""

from datetime import datetime
from functools import partial
from pathlib import Path

import pytest

from services.ops_worker.sealing.anchors import FileAnchor
from services.ops_worker.workers.audit_verifier import AuditVerifier
from services.ops_worker.workers.layer_check import check_layer
from services.shared.sealed_log.kept import read_kept
from services.shared.sealed_log.key_file import KeyFile
from services.shared.sealed_log.verification import Report, Verification
from tests.support.sealed_log import SealedLog
from tests.support.wait import until

EDIT = "update audit_log set message = 'nothing happened' where xid = (select {}(xid) from audit_log)"


def verifier_of(log: SealedLog) -> AuditVerifier:
    """Return the verifier of the process with the key."""
    return AuditVerifier(log.sealer.keys, FileAnchor(log.checkpoints), recent_seconds=3600, all_seconds=86400)


async def run(log: SealedLog, verifier: AuditVerifier) -> int:
    """Run passes until all due results are recorded. Return the number of hashed rows."""
    assert await verifier.verify(log.writer) == 0
    task = verifier._task  # noqa: SLF001
    if task is None:
        return 0
    assert "running" in verifier.as_dict()
    await until(task.done)
    return await verifier.verify(log.writer)


async def results(log: SealedLog) -> dict[str, tuple[int, int]]:
    """Rows and faults by scope."""
    rows = await log.conn.fetch("select scope, row_count, fault_count from audit.verifications")
    return {row["scope"]: (row["row_count"], row["fault_count"]) for row in rows}


async def test_it_verifies_everything_and_then_the_last_day(log: SealedLog) -> None:
    """Each scope runs when it is due, and its result is in the database, /health and two metrics."""
    verifier = verifier_of(log)
    rows = await log.conn.fetchval("select count(*) from audit_log")
    assert await run(log, verifier) == rows
    assert await results(log) == {"all": (rows, 0), "day": (rows, 0)}
    assert await run(log, verifier) == 0
    await log.conn.execute("update audit.verifications set verified_at = now() - interval '61 minutes'")
    assert await run(log, verifier) == rows
    assert verifier.as_dict()["day"]["faults"] == 0
    ages = await log.conn.fetch(
        "select scope, extract(epoch from now()) - value as age from metrics.audit_verified_at_seconds"
    )
    assert {row["scope"]: row["age"] > 3600 for row in ages} == {"all": True, "day": False}
    faults = await log.conn.fetch("select scope, value from metrics.audit_verification_faults")
    assert {row["scope"]: row["value"] for row in faults} == {"all": 0, "day": 0, "layer": 0}


async def test_a_superusers_edit_is_found_unasked(log: SealedLog) -> None:
    """An alert, an event and the metrics name the block."""
    verifier = verifier_of(log)
    await run(log, verifier)
    await log.conn.execute("set session_replication_role = replica")
    await log.conn.execute(EDIT.format("max"))
    await log.conn.execute("set session_replication_role = origin")
    await log.conn.execute("update audit.verifications set verified_at = now() - interval '61 minutes'")
    assert await run(log, verifier) > 0
    assert (await results(log))["day"][1] == 1
    shown = verifier.as_dict()["day"]
    assert (shown["faults"], "at least one was altered" in shown["message"]) == (1, True)
    assert await log.conn.fetchval("select value from metrics.audit_log_broken")
    alert = await log.conn.fetchrow("select * from alerts where fingerprint = 'audit:log'")
    assert (alert["severity"], alert["status"]) == ("critical", "open")
    assert await log.conn.fetchval("select count(*) from audit_log where event_type = 'audit.log_broken'") == 1


async def test_the_layer_is_compared_as_often(log: SealedLog, ops_url: str, caplog: pytest.LogCaptureFixture) -> None:
    """Differences are in the log, /health and the record. A failed comparison stops nothing else."""
    verifier = verifier_of(log)
    verifier.check_layer = partial(check_layer, ops_url)
    for _ in range(3):
        await run(log, verifier)
    assert (await results(log))["layer"] == (0, 0)
    await log.conn.execute("alter table audit_log disable trigger audit_log_no_truncate")
    await log.conn.execute("update audit.verifications set verified_at = now() - interval '2 hours'")
    for _ in range(3):
        await run(log, verifier)
    words = "altered trigger audit_log_no_truncate on public.audit_log"
    assert (await results(log))["layer"][1] > 0
    assert words in verifier.as_dict()["layer"]["message"]
    assert f"the SQL layer is not as it was applied: {words}" in caplog.text
    assert await log.conn.fetchval("select value from metrics.audit_verification_faults where scope = 'layer'") > 0
    assert await log.conn.fetchval("select count(*) from alerts where fingerprint = 'audit:log'") == 0
    verifier.check_layer = partial(check_layer, "postgresql://pulse_ops@127.0.0.1:1/pulse")
    await log.conn.execute("update audit.verifications set verified_at = now() - interval '2 hours'")
    for _ in range(3):
        await run(log, verifier)
    assert "the SQL layer was not compared" in caplog.text
    fresh = (
        "select array_agg(scope order by scope) from audit.verifications where verified_at > now() - interval '1 hour'"
    )
    assert await log.conn.fetchval(fresh) == ["day"]


async def recent(log: SealedLog, since: datetime) -> Report:
    """Return what the hourly verification finds."""
    kept = read_kept(log.checkpoints, log.public_keys)[-1:]
    return await Verification(log.writer, log.public_keys, kept, since, in_background=True).run()


async def test_the_hourly_one_reads_what_is_recent_and_proves_it(log: SealedLog) -> None:
    """It starts in the middle of the log, and the signed root still reveals older alterations."""
    since = await log.conn.fetchval("select sealed_at from audit.blocks where block_no = 6")
    first = await log.conn.fetchval("select min(block_no) from audit.blocks where sealed_at = $1", since)
    rows = await log.conn.fetchval("select sum(row_count) from audit.blocks where block_no >= $1", first)
    report = await recent(log, since)
    assert (report.faults, report.hashed) == ([], rows)
    await log.conn.execute("set session_replication_role = replica")
    for statement, words in (
        (EDIT.format("min"), None),
        (EDIT.format("max"), "at least one was altered"),
        ("delete from audit_log where xid = (select max(xid) from audit_log)", "removed"),
        ("update audit.blocks set row_count = row_count + 1 where block_no = 8", "block 8 was altered"),
        ("update audit.tree_nodes set hash = sha256(hash) where level = 1 and node_index = 2", "not those that were"),
        ("delete from audit.blocks where block_no = 7", "block 7 is missing"),
        ("delete from audit.blocks where block_no > 8; delete from audit.checkpoints where tree_size > 9", "cut off"),
    ):
        await save(log)
        await log.conn.execute(statement)
        found = [str(fault) for fault in (await recent(log, since)).faults]
        if words is None:
            assert found == []
        else:
            assert words in found[0], (statement, found)
        await restore(log)


TABLES = ("public.audit_log", "audit.blocks", "audit.tree_nodes", "audit.checkpoints")


async def save(log: SealedLog) -> None:
    """Save copies of the log's tables."""
    for table in TABLES:
        name = table.replace(".", "_")
        await log.conn.execute(
            f"drop table if exists pg_temp.{name}; create temp table {name} as select * from {table}"
        )


async def restore(log: SealedLog) -> None:
    """Put them back."""
    for table in TABLES:
        name = table.replace(".", "_")
        await log.conn.execute(f"delete from {table}; insert into {table} select * from pg_temp.{name}")


async def test_a_worker_without_a_key_does_not_verify(log: SealedLog, tmp_path: Path) -> None:
    """It has no checkpoints to compare, and leaves the verification to the holder of the key."""
    stranger = AuditVerifier(
        KeyFile(tmp_path / "empty" / "signing.key"), FileAnchor(tmp_path / "none"), recent_seconds=1, all_seconds=1
    )
    assert await run(log, stranger) == 0
    assert await results(log) == {}
    assert await run(log, verifier_of(log)) > 0


async def test_a_kept_checkpoint_of_another_key_is_a_fault(log: SealedLog) -> None:
    """`pulse audit verify` reports the same fault: an unknown key signed a stored checkpoint."""
    forger = KeyFile(log.home / "forger.key", "pulse.test/audit").load()
    text = (await log.conn.fetchval("select note from audit.newest_checkpoint()")).rpartition("\n\n")[0] + "\n"
    await FileAnchor(log.checkpoints).keep(forger.sign(text))
    verifier = verifier_of(log)
    await run(log, verifier)
    assert (await results(log))["all"][1] == 1
    assert "that no known key signed" in verifier.as_dict()["all"]["message"]
