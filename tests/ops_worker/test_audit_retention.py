"""Retention of the audit trail: whole months are proven and dropped with a signed tombstone, unless held."""

import asyncio
import base64
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import asyncpg
import httpx
import pytest
from prometheus_client import CollectorRegistry

from services.ops_worker.sealing.anchors import Anchor, Anchors, FileAnchor, HttpAnchor
from services.ops_worker.sealing.sealer import Sealer
from services.ops_worker.workers.audit_retention import AuditRetention
from services.ops_worker.workers.partition_worker import PartitionWorker
from services.ops_worker.workers.retention_worker import RetentionWorker
from services.shared import db
from services.shared.sealed_log import tree
from services.shared.sealed_log.key_file import KeyFile
from services.shared.sealed_log.note import BadNote, SignerKey
from services.shared.sealed_log.tombstone import Tombstone, open_tombstone
from tests.support.clock import stop_clock
from tests.support.connections import Connect, is_blocked
from tests.support.wait import until

NOW = "2026-11-26 12:00Z"
MAY, JUNE, NOVEMBER = "2025-05-10 08:00Z", "2025-06-20 08:00Z", "2026-11-20 08:00Z"
DAYS = 400
"""With NOW, May and June 2025 are over for that long, October 2025 is not."""


@dataclass
class Trail:
    """A database with sealed months, the retention, its keys and anchors."""

    conn: asyncpg.Connection
    pool: db.Pool
    directory: Path
    keys: KeyFile
    sealer: Sealer
    retention: AuditRetention

    async def write(self, timestamp: str, count: int = 3, *, recorded_at: str | None = None) -> None:
        """Write so many events of a time in one transaction, recorded at that time unless stated otherwise."""
        await self.conn.execute(
            "insert into audit_log (tenant_id, timestamp, event_id, recorded_at, event_type, category, action, message,"
            " source_service, entity_id) select 'acme', $1::text::timestamptz, core.uuid_v7(), $2::text::timestamptz,"
            " 'alert.opened', 'alert', 'opened', 'm', 'test', n::text from generate_series(1, $3) n",
            timestamp,
            recorded_at or timestamp,
            count,
        )

    async def seal(self) -> None:
        """Seal what is there."""
        await self.sealer.seal(self.pool)

    async def drop(self) -> int:
        """Return one pass of the retention."""
        return await self.retention.drop(self.pool)

    async def months(self) -> list[str]:
        """Return the months that have a partition, as YYYYMM."""
        rows = await self.conn.fetch(
            "select right(relid::regclass::text, 6) from pg_partition_tree('audit_log')"
            " where relid::regclass::text ~ '[0-9]{6}$' order by 1"
        )
        return [row[0] for row in rows]

    async def tombstones(self) -> list[Tombstone]:
        """Return what the database has, signatures checked."""
        rows = await self.conn.fetch("select note from audit.tombstones order by segment, last_block")
        return [open_tombstone(row["note"], self.keys.verifiers()) for row in rows]

    async def candidate(self, days: int = DAYS) -> str | None:
        """Return the month that may go next, as YYYY-MM."""
        segment = await self.conn.fetchval("select segment from audit.retention_candidate($1)", days)
        return segment and f"{segment:%Y-%m}"

    async def events(self, event_type: str) -> list[asyncpg.Record]:
        """Events of a type, in order."""
        return list(
            await self.conn.fetch("select * from audit_log where event_type = $1 order by event_id", event_type)
        )


def anchors(*kept: Anchor) -> Anchors:
    """Return anchors with separate counters."""
    return Anchors(kept, CollectorRegistry())


@pytest.fixture
async def trail(conn: asyncpg.Connection, ops_pool: db.Pool, tmp_path: Path) -> Trail:
    """Sealed events of May and June 2025 and November 2026, partly in two writes. Nothing is dropped yet."""
    await stop_clock(conn, NOW)
    keys = KeyFile(tmp_path / "signing.key", "pulse.test/audit")
    file = FileAnchor(tmp_path / "anchor")
    trail = Trail(
        conn=conn,
        pool=ops_pool,
        directory=tmp_path / "anchor",
        keys=keys,
        sealer=Sealer("one", keys, rows_per_pass=1000, lease_seconds=10.0),
        retention=AuditRetention(DAYS, keys, anchors(file)),
    )
    for timestamp in (MAY, JUNE, MAY, NOVEMBER):
        await trail.write(timestamp)
        await trail.seal()
    await conn.execute("select ops.ensure_partitions()")
    await trail.seal()
    await conn.execute("select audit.set_retention($1)", DAYS)
    return trail


async def hold(conn: asyncpg.Connection, start: str | None, end: str | None, reason: str = "case 7") -> int:
    """Place a hold and return its number."""
    return int(
        await conn.fetchval("select audit.hold($1::text::timestamptz, $2::text::timestamptz, $3)", start, end, reason)
    )


async def test_the_oldest_month_goes_with_a_tombstone(trail: Trail) -> None:
    """A pass drops one month and keeps its blocks. The database and the anchor store the signed tombstone."""
    blocks = await trail.conn.fetch("select * from audit.blocks order by block_no")
    nodes = await trail.conn.fetch("select * from audit.tree_nodes order by level, node_index")
    may = [row for row in blocks if row["segment"] == date(2025, 5, 1)]
    assert len(may) == 2

    assert await trail.drop() == 1

    (tombstone,) = await trail.tombstones()
    assert tombstone == Tombstone(
        origin="pulse.test/audit",
        segment=date(2025, 5, 1),
        first_block=may[0]["block_no"],
        last_block=may[1]["block_no"],
        row_count=6,
        root=tree.root_of([row["leaf_hash"] for row in may]),
        tree_size=len(blocks),
        released_at=tombstone.released_at,
    )
    assert await trail.months() == ["202506", "202610", "202611", "202612", "202701"]
    assert await trail.conn.fetchval(f"select count(*) from audit_log where timestamp = '{MAY}'") == 0
    note = await trail.conn.fetchval("select note from audit.tombstones")
    assert FileAnchor(trail.directory).tombstones() == [note]
    (event,) = await trail.events("audit.segment_dropped")
    assert (event["entity_id"], event["actor_id"]) == ("audit_log_202505", "ops_worker")
    assert event["trace_id"] is not None
    assert '"rows": 6' in event["details"]

    assert await trail.conn.fetch("select * from audit.blocks order by block_no") == blocks
    assert await trail.conn.fetch("select * from audit.tree_nodes order by level, node_index") == nodes
    assert await trail.drop() == 1
    assert await trail.drop() == 0
    assert [one.segment for one in await trail.tombstones()] == [date(2025, 5, 1), date(2025, 6, 1)]
    assert await trail.months() == ["202610", "202611", "202612", "202701"]


async def test_sealing_goes_on_after_a_drop(trail: Trail) -> None:
    """New blocks extend the tree over dropped blocks, and the signed root covers all leaves."""
    await trail.drop()
    await trail.write(NOVEMBER)
    await trail.seal()
    leaves = [row[0] for row in await trail.conn.fetch("select leaf_hash from audit.blocks order by block_no")]
    root, size = await trail.conn.fetchrow("select root, tree_size from audit.checkpoints order by tree_size desc")
    assert (root, size) == (tree.root_of(leaves), len(leaves))
    assert await trail.conn.fetchval("select audit._unsealed_count(10)") == 0


async def test_a_month_goes_at_its_moment(trail: Trail) -> None:
    """The last moment of May 2025 is 400 days old when July 6th 2026 begins."""
    ends = datetime(2025, 6, 1, tzinfo=UTC) + timedelta(days=DAYS)
    await stop_clock(trail.conn, (ends - timedelta(microseconds=1)).isoformat())
    assert await trail.candidate() is None
    for zone in ("Pacific/Kiritimati", "America/St_Johns"):
        await trail.conn.execute(f"set timezone = '{zone}'")
        await stop_clock(trail.conn, ends.isoformat())
        assert await trail.candidate() == "2025-05"


async def test_a_clock_that_is_behind_drops_nothing_early(trail: Trail) -> None:
    """Retention counts from the recording of an event by the database, not from the producer's time."""
    await trail.write(MAY, 1, recorded_at="2026-11-20 08:00Z")
    await trail.seal()
    assert await trail.candidate() == "2025-06"
    assert await trail.conn.fetchval("select audit.drop_segment('2025-05-01', 400, null)") == "gone"
    await stop_clock(trail.conn, "2027-12-25 07:59:59.999999Z")
    assert await trail.candidate() == "2025-06"
    await stop_clock(trail.conn, "2027-12-25 08:00Z")
    assert await trail.candidate() == "2025-05"


async def test_zero_days_keep_everything(trail: Trail) -> None:
    """With the default, nothing is dropped and the run is still recorded."""
    trail.retention.days = 0
    assert await trail.drop() == 0
    assert await trail.candidate(0) is None
    assert (await trail.months())[0] == "202505"
    assert tuple(await trail.conn.fetchrow("select keep_days, last_run_at is not null from audit.retention")) == (
        0,
        True,
    )


@pytest.mark.parametrize("days", [1, 29, 0, -5])
async def test_the_database_keeps_a_month_at_least(trail: Trail, days: int) -> None:
    """The limit holds for direct callers, whose number of days no setting has checked."""
    with pytest.raises(asyncpg.PostgresError, match="at least 30 days") as refused:
        await trail.conn.execute("select audit.drop_segment('2025-05-01', $1, null)", days)
    assert refused.value.sqlstate == "PU422"


@pytest.mark.parametrize(("kept", "words"), [(0, "for ever"), (401, "for 401 days")])
async def test_no_call_drops_earlier_than_the_worker_is_set_to(trail: Trail, kept: int, words: str) -> None:
    """A number passed to the database does not override the setting."""
    await trail.conn.execute("select audit.set_retention($1)", kept)
    with pytest.raises(asyncpg.PostgresError, match=f"is kept {words}, as the ops worker last set it") as refused:
        await trail.pool.execute("select audit.drop_segment('2025-05-01', 400, null)")
    assert refused.value.sqlstate == "PU422"


@pytest.mark.parametrize(
    ("start", "end", "held"),
    [
        ("2025-05-31 23:59:59.999999Z", "2025-06-01 00:00Z", ["2025-05"]),
        ("2025-06-01 00:00Z", "2025-06-01 00:00:00.000001Z", ["2025-06"]),
        ("2025-04-01 00:00Z", "2025-05-01 00:00Z", []),
        ("2025-04-01 00:00Z", "2025-05-01 00:00:00.000001Z", ["2025-05"]),
        ("2025-07-01 00:00Z", None, []),
        ("2025-06-30 23:59:59.999999Z", None, ["2025-06"]),
        (None, None, ["2025-05", "2025-06"]),
        ("2025-06-01 00:00+01", "2025-06-01 00:00Z", ["2025-05"]),
    ],
)
async def test_a_hold_keeps_the_months_that_it_touches(
    trail: Trail, start: str | None, end: str | None, held: list[str]
) -> None:
    """Ranges are exact to the microsecond, in UTC for any session. Other months are dropped."""
    await trail.conn.execute("set timezone = 'Asia/Kolkata'")
    hold_id = await hold(trail.conn, start, end)
    while await trail.drop():
        pass
    assert [month for month in ("2025-05", "2025-06") if month.replace("-", "") in await trail.months()] == held
    for month in held:
        outcome = await trail.conn.fetchval("select audit.drop_segment(($1 || '-01')::date, 400, null)", month)
        assert outcome == "held"
    await trail.conn.execute("select audit.release($1, 'closed')", hold_id)
    while await trail.drop():
        pass
    assert (await trail.months())[0] == "202610"


async def test_holds_are_audited(trail: Trail) -> None:
    """The event has actor, reason, range and the months dropped before. The hold stays on record."""
    await trail.drop()
    async with trail.conn.transaction():
        await trail.conn.execute("select core.act('system', 'user', 'cli:eve', '', '', '', 'pulse_audit')")
        hold_id = await hold(trail.conn, "2025-05-01Z", "2025-07-01Z", "case 7\nforged line")
    await trail.conn.execute("select audit.release($1, 'settled')", hold_id)

    (placed,) = await trail.events("audit.hold_placed")
    assert (placed["actor_id"], placed["entity_id"], placed["tenant_id"]) == ("cli:eve", str(hold_id), "system")
    assert '"dropped_before": ["2025-05-01"]' in placed["details"]
    assert "case 7�forged line" in placed["details"]
    (released,) = await trail.events("audit.hold_released")
    assert (released["actor_id"], released["entity_id"]) == ("tests", str(hold_id))
    row = await trail.conn.fetchrow("select * from audit.legal_holds")
    assert (row["placed_by"], row["released_by"], row["release_reason"]) == ("cli:eve", "tests", "settled")
    assert row["dropped_months"] == [date(2025, 5, 1)]


async def test_a_hold_takes_a_range_and_a_reason(conn: asyncpg.Connection) -> None:
    """An empty range or reason is refused, and a hold is released only once."""
    for start, end, reason in (("2025-01-02Z", "2025-01-02Z", "x"), ("2025-01-02Z", None, " ")):
        with pytest.raises(asyncpg.PostgresError) as refused:
            await hold(conn, start, end, reason)
        assert refused.value.sqlstate == "PU422"
    hold_id = await hold(conn, None, None)
    await conn.execute("select audit.release($1, 'x')", hold_id)
    for number in (hold_id, 999):
        with pytest.raises(asyncpg.PostgresError, match="no hold") as refused:
            await conn.execute("select audit.release($1, 'x')", number)
        assert refused.value.sqlstate == "PU404"


async def test_only_auditors_place_holds(trail: Trail, role_url: Callable[[str], str]) -> None:
    """The services that drop can neither place nor release holds. Auditors can, but cannot drop."""
    for statement in ("select audit.hold(null, null, 'x')", "select audit.release(1, 'x')"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await trail.pool.execute(statement)
    auditor = await asyncpg.connect(role_url("pulse_auditor"))
    hold_id = await hold(auditor, None, None)
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await auditor.execute("select audit.drop_segment('2025-05-01', 400, null)")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await auditor.execute("delete from audit.holds")
    await auditor.execute("select audit.release($1, 'x')", hold_id)
    await auditor.close()


def after_proof(monkeypatch: pytest.MonkeyPatch, happening: Callable[[], Awaitable[object]]) -> None:
    """Run an action once, between the proof of a month and its drop."""
    prove = AuditRetention.prove

    async def prove_and_be_late(self: AuditRetention, pool: db.Pool, segment: date, tree_size: int) -> str | None:
        note = await prove(self, pool, segment, tree_size)
        monkeypatch.undo()
        await happening()
        return note

    monkeypatch.setattr(AuditRetention, "prove", prove_and_be_late)


async def test_a_hold_placed_after_the_proof_wins(trail: Trail, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hold is placed between selection and drop, and the drop checks again."""
    after_proof(monkeypatch, lambda: hold(trail.conn, "2025-05-03Z", "2025-05-04Z"))
    assert await trail.drop() == 0
    assert (await trail.months())[0] == "202505"
    assert await trail.tombstones() == []


@pytest.mark.parametrize("sealed", [True, False])
async def test_an_event_after_the_proof_is_not_lost(
    trail: Trail, monkeypatch: pytest.MonkeyPatch, sealed: bool
) -> None:
    """The tombstone does not cover the event, so the month stays until the next pass, without an alarm."""

    async def be_late() -> None:
        await trail.write(MAY, 1)
        if sealed:
            await trail.seal()

    after_proof(monkeypatch, be_late)
    assert await trail.drop() == 0
    assert await trail.events("audit.log_broken") == []
    await trail.seal()
    assert await trail.drop() == 1
    assert [one.row_count for one in await trail.tombstones()] == [7]


@pytest.mark.parametrize("what", ["event", "hold"])
async def test_what_happens_during_the_drop_undoes_it(trail: Trail, connect: Connect, what: str) -> None:
    """After the long check of the rows, a short one under a lock finds new events and holds."""
    size = await trail.conn.fetchval("select max(tree_size) from audit.checkpoints")
    note = await trail.retention.prove(trail.pool, date(2025, 5, 1), size)
    bury = await trail.conn.fetchval("select pg_get_functiondef('audit._bury_blocks'::regproc)")
    await trail.conn.execute(bury.replace("\nend\n", "\n  perform pg_advisory_xact_lock(7);\nend\n"))
    await trail.conn.execute("alter function audit.drop_segment set lock_timeout = '30s'")
    blocker, dropper = await connect(), await connect()
    await blocker.execute("select pg_advisory_lock(7)")
    dropping = asyncio.create_task(dropper.execute("select audit.drop_segment('2025-05-01', 400, $1)", note))
    await until(lambda: is_blocked(trail.conn, dropper))
    await (trail.write(MAY, 1) if what == "event" else hold(trail.conn, "2025-05-03Z", "2025-05-04Z"))
    await blocker.execute("select pg_advisory_unlock(7)")
    with pytest.raises(asyncpg.LockNotAvailableError, match="a hold or an event meanwhile"):
        await dropping
    assert await trail.tombstones() == []
    assert (await trail.months())[0] == "202505"


@pytest.mark.parametrize("what", ["event", "hold"])
async def test_nothing_slips_in_between_the_last_look_and_the_end(trail: Trail, connect: Connect, what: str) -> None:
    """The drop waits at its own event, after its last check."""
    size = await trail.conn.fetchval("select max(tree_size) from audit.checkpoints")
    note = await trail.retention.prove(trail.pool, date(2025, 5, 1), size)
    await trail.conn.execute(
        "create function public.gate() returns trigger language plpgsql as"
        " $$ begin perform pg_advisory_xact_lock(7); return new; end $$;"
        "create trigger gate before insert on audit_log for each row"
        " when (new.action = 'segment_dropped') execute function public.gate();"
        "alter function audit.drop_segment set lock_timeout = '30s'"
    )
    blocker, dropper, late = await connect(), await connect(), await connect()
    await blocker.execute("select pg_advisory_lock(7)")
    dropping = asyncio.create_task(dropper.fetchval("select audit.drop_segment('2025-05-01', 400, $1)", note))
    await until(lambda: is_blocked(trail.conn, dropper))
    writing = asyncio.create_task(
        hold(late, "2025-05-03Z", "2025-05-04Z")
        if what == "hold"
        else late.execute(f"select audit.write(array[audit.event('acme', 'alert.opened', p_timestamp => '{MAY}')])")
    )
    await until(lambda: is_blocked(trail.conn, late))
    if what == "event":
        # It would deadlock with the end of the drop, and Postgres would end either.
        late.terminate()
        await asyncio.wait([writing])
    await blocker.execute("select pg_advisory_unlock(7)")
    assert await dropping == "dropped"
    if what == "hold":
        await writing
        assert '"dropped_before": ["2025-05-01"]' in (await trail.events("audit.hold_placed"))[0]["details"]


async def test_a_hold_that_is_not_committed_yet_is_waited_for(trail: Trail, connect: Connect) -> None:
    """The drop does not ignore it: it times out and leaves the month to the next pass."""
    auditor = await connect()
    transaction = auditor.transaction()
    await transaction.start()
    await hold(auditor, "2025-05-03Z", "2025-05-04Z")
    assert await trail.drop() == 0
    await transaction.commit()
    assert await trail.candidate() == "2025-06"
    assert (await trail.months())[0] == "202505"


async def test_a_hold_that_comes_during_a_drop_waits_and_says_so(trail: Trail, connect: Connect) -> None:
    """The hold cannot take effect between the last check and the commit. Its event lists the dropped month."""
    await trail.conn.execute("set lock_timeout = 0")
    auditor = await connect()
    note = await trail.retention.prove(
        trail.pool, date(2025, 5, 1), await trail.conn.fetchval("select max(tree_size) from audit.checkpoints")
    )
    transaction = trail.conn.transaction()
    await transaction.start()
    assert await trail.conn.fetchval("select audit.drop_segment('2025-05-01', 400, $1)", note) == "dropped"
    placing = asyncio.create_task(hold(auditor, "2025-05-03Z", "2025-05-04Z"))
    await until(lambda: is_blocked(trail.conn, auditor))
    await transaction.commit()
    await placing
    assert '"dropped_before": ["2025-05-01"]' in (await trail.events("audit.hold_placed"))[0]["details"]


async def test_a_drop_in_an_old_snapshot_is_refused(trail: Trail) -> None:
    """An old snapshot would not show a hold although its lock is released."""
    with pytest.raises(asyncpg.PostgresError, match="read committed"):
        async with trail.conn.transaction(isolation="repeatable_read"):
            await trail.conn.execute("select audit.drop_segment('2025-05-01', 400, null)")


async def test_two_workers_drop_each_month_once(trail: Trail) -> None:
    """One of the workers drops the month, and both find the trail whole."""
    other = AuditRetention(DAYS, trail.keys, anchors(FileAnchor(trail.directory / "other")))
    dropped = 0
    while await trail.candidate() is not None:
        dropped += sum(await asyncio.gather(trail.drop(), other.drop(trail.pool)))
    assert dropped == 2
    assert [one.segment for one in await trail.tombstones()] == [date(2025, 5, 1), date(2025, 6, 1)]
    assert len(await trail.events("audit.segment_dropped")) == 2
    # Each worker exports both tombstones because each has its own anchor.
    assert await trail.drop() + await other.drop(trail.pool) == 0
    assert len(FileAnchor(trail.directory / "other").tombstones()) == len(FileAnchor(trail.directory).tombstones()) == 2


async def test_a_reader_or_writer_makes_the_month_busy(trail: Trail, connect: Connect) -> None:
    """Writers wait briefly, and the month is dropped at the next pass."""
    reader, writer = await connect(), await connect()
    transaction = reader.transaction()
    await transaction.start()
    await reader.fetch("select count(*) from audit_log")
    assert await trail.drop() == 0
    await writer.execute("select audit.write(array[audit.event('acme', 'config.rule_created')])")
    await transaction.rollback()
    assert await trail.drop() == 1


async def test_a_month_with_unsealed_rows_stays(trail: Trail) -> None:
    """A late event keeps its month until it is sealed. Then the tombstone covers its block."""
    await trail.write(MAY, 1)
    assert await trail.candidate() == "2025-06"
    assert await trail.conn.fetchval("select audit.drop_segment('2025-05-01', 400, null)") == "unsealed"
    await trail.seal()
    assert await trail.candidate() == "2025-05"
    await trail.drop()
    assert [one.row_count for one in await trail.tombstones()] == [7]


async def test_a_row_of_an_open_transaction_is_waited_for(trail: Trail, connect: Connect) -> None:
    """A writer with an open late event is neither aborted nor lost."""
    late = await connect()
    transaction = late.transaction()
    await transaction.start()
    await replace(trail, conn=late).write(MAY, 1)
    assert await trail.drop() == 0
    await transaction.commit()
    assert await trail.candidate() == "2025-06"
    await trail.seal()
    await trail.drop()
    assert [one.row_count for one in await trail.tombstones()] == [7]


async def test_a_late_event_of_a_dropped_month_makes_a_second_tombstone(trail: Trail) -> None:
    """The event gets a new partition and blocks. Both tombstones stay, and no empty month reappears."""
    await trail.drop()
    await PartitionWorker(ahead_days=7, ahead_months=2).make(trail.pool)
    assert (await trail.months())[0] == "202506"

    await trail.write(MAY, 2)
    await trail.seal()
    assert await trail.candidate() == "2025-06"
    await PartitionWorker(ahead_days=7, ahead_months=2).make(trail.pool)
    await trail.seal()
    assert await trail.candidate() == "2025-05"
    assert await trail.drop() == 1
    first, second, *_ = await trail.tombstones()
    assert (first.segment, second.segment) == (date(2025, 5, 1), date(2025, 5, 1))
    assert (first.row_count, second.row_count) == (6, 2)
    assert second.first_block == second.last_block > first.last_block
    blocks = await trail.conn.fetchval("select leaf_hash from audit.blocks where block_no = $1", second.first_block)
    assert second.root == blocks


async def test_a_month_without_events_goes_without_tombstone(trail: Trail) -> None:
    """Only the drop itself is recorded, as an event."""
    await trail.conn.execute(
        "set role pulse_owner;"
        " select ops._create_partition('audit_log', 'audit_log_202504', '2025-04-01Z', '2025-05-01Z'); reset role"
    )
    assert await trail.candidate() == "2025-04"
    assert await trail.drop() == 1
    assert await trail.tombstones() == []
    (event,) = await trail.events("audit.segment_dropped")
    assert '"rows": 0' in event["details"]


FORGERY = (
    "insert into audit_log"
    " (tenant_id, timestamp, event_id, event_type, category, action, message, source_service, xid)"
    " select tenant_id, '{MAY}', gen_random_uuid(), event_type, category, action, message, source_service, xid"
    " from audit_log where timestamp = '{of}' limit 1"
)
TAMPERING = {
    "edited": (f"update audit_log set message = '' where timestamp = '{MAY}' and entity_id = '2'", "rows of block 0"),
    "deleted": (f"delete from audit_log where timestamp = '{MAY}' and entity_id = '2'", "rows of block 0"),
    "added to a block": (FORGERY.format(MAY=MAY, of=MAY), "rows of block"),
    # The pass that sealed only June created no block of May that could lack the row.
    "added to no block": (FORGERY.format(MAY=MAY, of=JUNE), "more or fewer rows"),
    "header": ("update audit.blocks set sealed_at = now() where block_no = 2", "block 2 is not the one"),
}


@pytest.mark.parametrize("tampering", TAMPERING)
async def test_an_altered_month_is_kept_as_evidence(trail: Trail, tampering: str) -> None:
    """Retention keeps an altered month and those after it, so it cannot hide the alteration. An alert is raised."""
    statement, words = TAMPERING[tampering]
    await trail.conn.execute(f"set session_replication_role = replica; {statement}; reset session_replication_role")
    for _ in range(2):
        assert await trail.drop() == 0
    assert (await trail.months())[:2] == ["202505", "202506"]
    assert await trail.tombstones() == []
    (event,) = await trail.events("audit.log_broken")
    assert words in event["message"]
    assert (
        await trail.conn.fetchval("select count(*) from alerts where fingerprint = 'audit:log' and status = 'open'")
        == 1
    )
    overdue = await trail.conn.fetch("select reason, value from metrics.audit_retention_overdue_months")
    assert dict(overdue) == {"due": 0, "held": 0, "broken": 2, "unsealed": 0}

    # If a person closes the alert without repairing the month, it opens again and the month stays.
    alert_id = await trail.conn.fetchval("select alert_id from alerts")
    async with trail.conn.transaction():
        await trail.conn.execute("select core.act('system', 'user', 'ann', '', '', '', 'ui_iot')")
        await trail.conn.execute("select evaluator.close_alert($1, 'looked into it')", alert_id)
    assert await trail.drop() == 0
    assert len(await trail.events("audit.log_broken")) == 2
    assert (await trail.months())[:2] == ["202505", "202506"]


async def test_the_database_compares_the_tombstone(trail: Trail) -> None:
    """A note that differs from the database drops nothing, even in a manual call."""
    size = await trail.conn.fetchval("select max(tree_size) from audit.checkpoints")
    note = await trail.retention.prove(trail.pool, date(2025, 5, 1), size)
    assert note is not None
    good = open_tombstone(note, trail.keys.verifiers())
    key = trail.keys.load()
    false = [
        replace(good, segment=date(2025, 6, 1)),
        replace(good, first_block=good.first_block - 1),
        replace(good, last_block=good.last_block + 1),
        replace(good, row_count=5),
        replace(good, root=bytes(32)),
        replace(good, tree_size=size + 1),
        replace(good, tree_size=good.last_block),
        replace(good, origin="other/audit"),
    ]
    for text in [*(SignerKey(one.origin, key.private_key).sign(one.text()) for one in false), good.text(), "", None]:
        assert await trail.conn.fetchval("select audit.drop_segment('2025-05-01', 400, $1)", text) == "different"
    assert await trail.conn.fetchval("select audit.drop_segment('2025-04-01', 400, $1)", note) == "gone"
    assert await trail.conn.fetchval("select audit.drop_segment('2026-11-01', 400, $1)", note) == "gone"
    assert await trail.tombstones() == []
    assert await trail.conn.fetchval("select audit.drop_segment('2025-05-01', 400, $1)", note) == "dropped"


@pytest.mark.parametrize("count", [1, 2, 3, 5, 8, 13, 64, 100])
async def test_the_root_in_sql_is_that_of_the_tree(conn: asyncpg.Connection, count: int) -> None:
    """Both implement RFC 6962."""
    await conn.execute(
        "insert into audit.blocks select n, '2025-05-01', '1:1:', '2:2:', '2', n, 1, now(), now(), sha256(''),"
        " sha256(n::text::bytea), now(), 1 from generate_series(0, $1 - 1) n",
        count,
    )
    leaves = [row[0] for row in await conn.fetch("select leaf_hash from audit.blocks order by block_no")]
    assert await conn.fetchval("select audit._segment_root('2025-05-01', -1)") == tree.root_of(leaves)
    assert await conn.fetchval("select audit._segment_root('2025-05-01', $1)", count - 2) == leaves[-1]


async def test_proving_reads_each_row_once(trail: Trail, connect: Connect) -> None:
    """There are a thousand small blocks and many rows of other months, so blocks must be found by index."""
    await trail.write(NOVEMBER, 20_000)
    for _ in range(10):
        for timestamp in (MAY, NOVEMBER):
            await trail.write(timestamp, 20)
        await trail.seal()
    fresh = await connect()  # its counters start at zero
    async with fresh.transaction():
        await fresh.execute("set local enable_seqscan = on")
        found = await fresh.fetch("select row_count, leaves from audit.read_segment('2025-05-01', -1, 100000)")
        assert [len(row["leaves"]) // 32 for row in found] == [row["row_count"] for row in found]
        assert sum(row["row_count"] for row in found) == 206
        read = await fresh.fetchval(
            "select sum(seq_tup_read + coalesce(idx_tup_fetch, 0)) from pg_stat_xact_all_tables"
            " where relname like 'audit_log_2%'"
        )
    assert read <= 206


async def test_pages_of_a_month_leave_no_block_out(trail: Trail) -> None:
    """A page has about the given number of rows, or one block. The next page continues after it."""
    for _ in range(5):
        await trail.write(MAY, 4)
        await trail.seal()
    wanted = [
        row[0]
        for row in await trail.conn.fetch(
            "select block_no from audit.blocks where segment = '2025-05-01' order by block_no"
        )
    ]
    for rows in (1, 5, 7, 1000):
        found = [-1]
        while page := await trail.conn.fetch(
            "select block_no from audit.read_segment('2025-05-01', $1, $2)", found[-1], rows
        ):
            found += [row["block_no"] for row in page]
        assert found[1:] == wanted


async def test_a_partition_dropped_by_hand_leaves_no_tombstone(trail: Trail) -> None:
    """The owner can drop it despite a hold, as only a superuser could forbid that. The blocks remain."""
    await hold(trail.conn, None, None)
    await trail.conn.execute("set role pulse_owner; drop table audit_log_202505; reset role")
    assert await trail.tombstones() == []
    unaccounted = await trail.conn.fetchval(
        "select sum(row_count) from audit.blocks"
        " where segment = '2025-05-01' and block_no > audit._last_released_block(segment)"
    )
    assert unaccounted == 6


async def test_a_stalled_retention_shows(trail: Trail) -> None:
    """The view shows overdue months by cause and their age. It is empty while everything is kept."""

    async def overdue(what: str) -> dict[str, float]:
        return dict(await trail.conn.fetch(f"select reason, value from metrics.audit_retention_overdue_{what}"))

    await trail.conn.execute("select audit.set_retention(0)")
    assert (
        await overdue("months") == await overdue("seconds") == dict.fromkeys(("due", "held", "broken", "unsealed"), 0)
    )
    await trail.conn.execute("select audit.set_retention($1)", DAYS)
    assert await overdue("months") == {"due": 2, "held": 0, "broken": 0, "unsealed": 0}
    late = timedelta(days=143.5).total_seconds()  # from 400 days after May 2025 to NOW
    assert await overdue("seconds") == {"due": late, "held": 0, "broken": 0, "unsealed": 0}
    await hold(trail.conn, "2025-06-01Z", None)
    await trail.write(MAY)
    assert await overdue("months") == {"due": 0, "held": 1, "broken": 0, "unsealed": 1}
    assert await overdue("seconds") == {
        "due": 0,
        "held": late - timedelta(days=30).total_seconds(),
        "broken": 0,
        "unsealed": late,
    }
    await trail.seal()
    await trail.drop()
    assert await overdue("months") == {"due": 0, "held": 1, "broken": 0, "unsealed": 0}
    counted = (
        "select value from metrics.audit_rows union all select value from metrics.queue_depth where queue_name = $1"
    )
    rows = [row["value"] for row in await trail.conn.fetch(counted, "audit_unsealed")]
    assert sum(rows) == await trail.conn.fetchval("select count(*) from audit_log")
    assert await trail.tombstones() != []
    assert await trail.conn.fetchval("select value from metrics.audit_retention_last_run_age_seconds") == 0


async def test_no_other_pruning_touches_the_trail(trail: Trail) -> None:
    """The shortest retention of all other tables leaves every row of the trail."""
    before = await trail.conn.fetchval("select count(*) from audit_log where timestamp < '2026-11-21'")
    others = RetentionWorker(telemetry_days=9, alert_days=1, service_metrics_days=1, batch=1000)
    while await others.prune(trail.pool):
        pass
    assert await trail.conn.fetchval("select count(*) from audit_log where timestamp < '2026-11-21'") == before


async def test_an_anchor_that_is_away_gets_the_tombstone_later(trail: Trail) -> None:
    """The run is complete only when every anchor has every tombstone, each once."""
    posted: list[str] = []
    away = True

    def answer(request: httpx.Request) -> httpx.Response:
        if away:
            return httpx.Response(503)
        posted.append(request.content.decode())
        return httpx.Response(204)

    async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as client:
        trail.retention.anchors = anchors(FileAnchor(trail.directory), HttpAnchor(client, "http://anchor.test/"))
        assert await trail.drop() == 1
        assert await trail.conn.fetchval("select last_run_at is null from audit.retention")
        away = False
        assert await trail.drop() == 1
        assert await trail.drop() == 0
    assert [Tombstone.parse(note.rpartition("\n\n")[0] + "\n").segment.month for note in posted] == [5, 6]
    assert FileAnchor(trail.directory).tombstones() == posted
    assert await trail.conn.fetchval("select last_run_at is not null from audit.retention")


async def test_a_restart_hands_nothing_to_a_file_twice(trail: Trail) -> None:
    """A new process offers every tombstone again, and the file skips those that it has."""
    await trail.drop()
    await AuditRetention(0, trail.keys, anchors(FileAnchor(trail.directory))).drop(trail.pool)
    assert len(FileAnchor(trail.directory).tombstones()) == 1


async def test_a_note_that_was_cut_off_spoils_no_other(tmp_path: Path) -> None:
    """Checkpoints and tombstones written after a truncated note are read back whole."""
    key = KeyFile(tmp_path / "signing.key", "pulse.test/audit").load()
    notes = [key.sign(f"pulse.test/audit\ntombstone {n}\n") for n in range(3)]
    file = FileAnchor(tmp_path)
    await file.keep_tombstone(notes[0])
    path = tmp_path / "tombstones.log"
    whole = path.read_bytes()
    for length in range(len(whole) + 1):
        path.write_bytes(whole[:length])
        await file.keep_tombstone(notes[1])
        await file.keep_tombstone(notes[2])
        assert file.tombstones()[-2:] == notes[1:], length
        await file.keep_tombstone(notes[0])
        assert notes[0] in file.tombstones(), length


async def test_a_forged_tombstone_in_the_database_is_not_handed_out(trail: Trail) -> None:
    """Only tombstones signed by the log's keys reach an anchor, and the run is not complete."""
    await trail.drop()
    await trail.conn.execute("update audit.tombstones set note = replace(note, 'rows 6', 'rows 7')")
    assert await AuditRetention(0, trail.keys, anchors(FileAnchor(trail.directory / "new"))).drop(trail.pool) == 0
    assert FileAnchor(trail.directory / "new").tombstones() == []


def test_a_tombstone_reads_back() -> None:
    """Parsing and printing a tombstone give the same text. Other texts are refused."""
    tombstone = Tombstone(
        origin="pulse.test/audit",
        segment=date(2025, 1, 1),
        first_block=17,
        last_block=4711,
        row_count=1234567,
        root=bytes(range(32)),
        tree_size=98765,
        released_at=datetime(2026, 3, 5, 12, tzinfo=UTC),
    )
    text = tombstone.text()
    assert text == (
        "pulse.test/audit\ntombstone 2025-01-01\nblocks 17-4711\nrows 1234567\n"
        f"root {base64.b64encode(bytes(range(32))).decode()}\ntree 98765\nreleased 2026-03-05T12:00:00.000000Z\n"
    )
    assert Tombstone.parse(text) == tombstone
    for bad in (
        text.replace("2025-01-01", "2025-13-01"),
        text.replace("rows 1234567", "rows 01234567"),
        text.replace("12:00:00.000000Z", "13:00:00.000000+01:00"),
        text.replace("tombstone", "checkpoint"),
        text + "\n",
        text.removesuffix("\n"),
    ):
        with pytest.raises(BadNote):
            Tombstone.parse(bad)
