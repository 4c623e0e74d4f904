"""`pulse audit verify` finds no fault in an untouched log."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from services.shared.sealed_log.verification import Verification
from tests.support.audit_program import Pulse
from tests.support.exported import export
from tests.support.sealed_log import MONTHS, SealedLog, bury


async def test_an_untouched_log_is_whole(log: SealedLog) -> None:
    """Every row is hashed and every checkpoint agrees."""
    await log.fill()
    report = await log.verify()
    assert report.faults == []
    assert report.hashed == report.rows == await log.conn.fetchval("select count(*) from audit_log")
    assert report.blocks == await log.conn.fetchval("select count(*) from audit.blocks") > 5
    assert (report.unsealed, report.checkpoints) == (0, 5)


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("timestamp", "'infinity'"),
        ("timestamp", "'-infinity'"),
        ("timestamp", "'0001-12-31 BC'"),
        ("timestamp", "'10000-01-01'"),
        ("recorded_at", "'infinity'"),
        ("duration_ms", "'NaN'"),
        ("duration_ms", "'-Infinity'"),
    ],
)
async def test_what_has_no_one_form_is_not_stored(log: SealedLog, column: str, value: str) -> None:
    """The sealer and the verifiers could each interpret it differently."""
    await log.write(1)
    columns = {"timestamp": "now()", "recorded_at": "now()", "duration_ms": "1", column: value}
    with pytest.raises(asyncpg.CheckViolationError, match=f"audit_log_{column}_check"):
        await log.conn.execute(
            "insert into audit_log (event_id, event_type, category, action, message, source_service,"
            f" {', '.join(columns)}) values (gen_random_uuid(), 'rule.deleted', 'rule', 'deleted', 'm', 's',"
            f" {', '.join(columns.values())})"
        )


async def bury_january(log: SealedLog) -> None:
    """Drop the partition and store its tombstone in one transaction, as retention does."""
    blocks = await log.conn.fetch(
        "select block_no, row_count, leaf_hash from audit.blocks where segment = '2026-01-01' order by block_no"
    )
    async with log.conn.transaction():
        await bury(log, log.sealer.keys.load(), segment="2026-01-01", blocks=blocks)
        await log.conn.execute("drop table audit_log_202601")


@pytest.mark.parametrize("moment", ["_check_rows", "_check_empty", "_check_counts"])
async def test_a_month_may_go_while_the_log_is_verified(
    log: SealedLog, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """Retention and `pulse audit verify` neither block each other nor raise a false alarm."""
    await log.fill()
    step = getattr(Verification, moment)

    async def interrupted(self: Verification, *arguments: object) -> None:
        await bury_january(log)
        await step(self, *arguments)

    monkeypatch.setattr(Verification, moment, interrupted)
    report = await log.verify()
    assert report.faults == []
    assert report.released > 0


async def test_rows_may_move_to_their_partition_while_the_log_is_verified(
    log: SealedLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A month may be written before its partition exists."""
    await log.fill()
    await log.write(5, timestamp="2025-11-11")
    await log.seal()
    step = Verification._check_rows  # noqa: SLF001  # the moment between two steps

    async def interrupted(self: Verification, *arguments: Any) -> None:
        await log.conn.execute("select * from ops.ensure_partitions()")
        await step(self, *arguments)

    monkeypatch.setattr(Verification, "_check_rows", interrupted)
    assert (await log.verify()).faults == []
    assert await log.conn.fetchval("select count(*) from audit_log_202511") == 5


async def test_an_empty_log_is_whole(log: SealedLog) -> None:
    """No checkpoint claims otherwise."""
    report = await log.verify()
    assert (report.faults, report.blocks) == ([], 0)
    await log.write(2)
    report = await log.verify()
    assert (report.faults, report.blocks, report.unsealed) == ([], 0, 2)
    assert report.unsealed_since is not None


async def test_large_and_small_blocks_are_hashed_in_batches(log: SealedLog, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every batch size hashes the same rows, each once."""
    for count in (1, 30, 2, 2, 1):
        for month in MONTHS:
            await log.write(count, timestamp=month)
        await log.seal()
    expected = await log.conn.fetchval("select count(*) from audit_log")
    for rows in (1, 3, 17, 1000):
        monkeypatch.setattr("services.shared.sealed_log.verification.BATCH_ROWS", rows)
        for independent in (False, True):
            report = await log.verify(independent=independent)
            assert (report.faults, report.hashed) == ([], expected)


TOUCHED = (
    "select coalesce(sum(seq_tup_read + coalesce(idx_tup_fetch, 0)), 0)::bigint from pg_stat_xact_user_tables"
    " where relname like 'audit\\_log%'"
)


@pytest.mark.parametrize("analyzed", ["empty", "full"])
async def test_a_batch_costs_what_it_holds(log: SealedLog, analyzed: str) -> None:
    """The cost holds for any planner statistics and for the cached plans of a long-lived connection."""
    if analyzed == "empty":
        await log.conn.execute("vacuum analyze audit_log")
    for number in range(40):
        await log.write(100, timestamp=MONTHS[number % 3])
        await log.seal()
    if analyzed == "full":
        await log.conn.execute("vacuum analyze audit_log")
    block = await log.conn.fetchrow("select * from audit.block_headers where block_no = 30")
    event_id = await log.conn.fetchval("select event_id from audit_log order by xid desc limit 1")
    bounds = (block["previous_snapshot"], block["snapshot"], block["segment"], block["segment"])
    for query, arguments in (
        ("audit.read_leaves($1, $2)", bounds[:2]),
        ("audit.read_leaves($1, $2, $3, $4)", bounds),
        ("audit.read_events_between($1, $2, $3, $4)", bounds),
        ("audit.read_events_between($1, $2, $3, $4, p_event_id => $5)", (*bounds, event_id)),
    ):
        for _ in range(7):
            async with log.conn.transaction():
                before = await log.conn.fetchval(TOUCHED)
                await log.conn.fetch(f"select * from {query}", *arguments)
                assert await log.conn.fetchval(TOUCHED) - before <= 110, query


@pytest.mark.slow
async def test_an_older_export_names_the_row(log: SealedLog, tmp_path: Path, role_url: Callable[[str], str]) -> None:
    """`verify --against` reports altered, removed and added rows by id. An edited export proves nothing."""
    await log.fill()
    file = tmp_path / "january.jsonl"
    file.write_bytes(b"".join(await export(log)))
    pulse = Pulse(log.home.parent, role_url("pulse_auditor"))
    keys = ("--keys", str(log.sealer.keys.public_path), "--checkpoint", str(log.checkpoints))
    count = file.read_bytes().count(b'"type":"event"')
    done = await pulse("verify", *keys, "--against", str(file))
    assert f"{count} exported events are unchanged." in done.stdout
    edited, removed = await log.conn.fetch(
        "select event_id::text from audit_log where tenant_id = 'acme' and timestamp < '2026-02-01' limit 2"
    )
    await log.conn.execute("set session_replication_role = replica")
    await log.conn.execute(
        "update audit_log set severity = 'debug', message = 'x' where event_id::text = $1", edited[0]
    )
    await log.conn.execute("delete from audit_log where event_id::text = $1", removed[0])
    await log.conn.execute(
        'insert into audit_log select (jsonb_populate_record(l, \'{"tenant_id": "late"}\')).* from audit_log l'
        " where timestamp < '2026-02-01' limit 1"
    )
    shown = (await pulse("verify", *keys, "--against", str(file), status=1)).stdout
    assert re.search(
        rf"event {edited[0]} \(alert.opened of tenant acme at 2026-01-.*was altered: severity, message", shown
    )
    assert re.search(rf"event {removed[0]} \(alert.opened of tenant acme at 2026-01-.*was removed", shown)
    assert "of tenant late at 2026-01-" in shown
    assert await log.conn.fetchval("select count(*) from audit_log where details -> 'filter' ? 'against'") == 2
    file.write_bytes(file.read_bytes().replace(b"acme", b"acne", 1))
    refused = await pulse("verify", *keys, "--against", str(file), status=2)
    assert f"{file} proves nothing" in refused.stderr
