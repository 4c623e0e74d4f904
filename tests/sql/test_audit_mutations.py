"""The checkpoints kept outside the database reveal every change of the sealed trail by a superuser."""

import re
from pathlib import Path

import asyncpg
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from services.shared import db
from services.shared.sealed_log.note import SignerKey
from tests.support.sealed_log import SealedLog, bury, make_sealer

COLUMNS = {
    "tenant_id": "'umbrella2'",
    "timestamp": "timestamp + interval '1 microsecond'",
    "event_id": "gen_random_uuid()",
    "recorded_at": "recorded_at - interval '1 microsecond'",
    "event_type": "'alert.closed'",
    "category": "'alarm'",
    "severity": "'debug'",
    "entity_type": "'rule'",
    "entity_id": "entity_id || ' '",
    "entity_name": "null",
    "action": "'closed'",
    "message": "message || '.'",
    "details": "details || '{\"n\": 7}'",
    "source_service": "'psql'",
    "actor_type": "'service'",
    "actor_id": "'eve'",
    "actor_name": "''",
    "ip_address": "'10.0.0.7/31'",
    "trace_id": "upper(trace_id)",
    "duration_ms": "duration_ms + 1e-9",
    "xid": "(xid::text::bigint + 1)::text::xid8",
}
ONE = "(timestamp, event_id) = (select timestamp, event_id from audit_log order by timestamp limit 1)"
ROW = f"update audit_log set {{}} where {ONE}"
UNCHECKED = (
    "alter table audit_log drop constraint audit_log_event_type_check;"
    " alter table audit_log drop constraint audit_log_severity_check;"
)
ALL_COLUMNS = (
    "tenant_id, timestamp, event_id, recorded_at, event_type, category, severity, entity_type, entity_id,"
    " entity_name, action, message, details, source_service, actor_type, actor_id, actor_name, ip_address, trace_id,"
    " duration_ms, xid"
)


def insert(**changes: str) -> str:
    """Return a copy of the first row with other values."""
    changes = {"event_id": "gen_random_uuid()", **changes}
    values = ", ".join(changes.get(name, name) for name in ALL_COLUMNS.split(", "))
    return f"insert into audit_log ({ALL_COLUMNS}) select {values} from audit_log where {ONE}"


SWAP = (
    "with pair as (select array_agg(event_id order by timestamp) as ids from (select event_id, timestamp from audit_log"
    " where timestamp < '2026-02-01' order by timestamp desc limit 2) p) update audit_log l set {0} = o.{0} from pair,"
    " audit_log o where l.event_id = any (ids) and o.event_id = any (ids) and o.event_id <> l.event_id"
)
OLDEST = "(select min(tree_size) from audit.checkpoints)"

# The tampering and the fault that must be reported.
ROWS = {
    **{f"edit {name}": (ROW.format(f"{name} = {value}"), r"^block \d|^1 row") for name, value in COLUMNS.items()},
    "retype a number": (ROW.format("details = '{\"n\": 2.00}'"), r"^block 0 .* at least one was altered"),
    "null for empty": (ROW.format("actor_name = ''"), r"^block 0 .* altered"),
    "move a row to another month": (ROW.format("timestamp = timestamp + interval '40 days'"), r"^block 0 .* 1 removed"),
    "delete a row": (f"delete from audit_log where {ONE}", r"^block 0 .* should have 8 rows and has 7: 1 removed"),
    "delete the newest sealed row": (
        (
            "delete from audit_log where (timestamp, event_id) = (select timestamp, event_id from audit_log"
            " order by xid desc, timestamp desc limit 1)"
        ),
        r"^block \d+ .* should have 1 row and has none",
    ),
    "delete a month's rows": (
        "delete from audit_log where timestamp < '2026-02-01'",
        r"^block 0 .* has none: they were removed, and no tombstone",
    ),
    "insert with the number of a sealed transaction": (insert(), r"^block 0 .* 1 added"),
    "insert with a number before all": (insert(xid="'3'::xid8"), "added|in no block"),
    "insert with the number of another transaction": (
        insert(xid="(select (min(l.xid)::text::bigint + 1)::text::xid8 from audit_log l)"),
        "added|in no block|has not ended",
    ),
    "insert with a number from the future": (
        insert(xid="'9000000000'::xid8"),
        "names a transaction that has not ended",
    ),
    "insert with the greatest number": (insert(xid="'18446744073709551615'::xid8"), "has not ended"),
    "forge a row into another month": (insert(timestamp="'2026-02-01'"), r"added"),
    "forge a row into a month without block": (
        insert(timestamp="'2026-05-01'"),
        r"^1 row of transaction \d+ in 2026-05",
    ),
    "swap two rows' details": (SWAP.format("details"), r"altered"),
    "swap two rows' transactions": (
        (
            "update audit_log l set xid = o.xid"
            " from audit_log o, (select min(xid) as a, max(xid) as b from audit_log) x where l.xid in (a, b)"
            " and o.xid in (a, b) and l.xid <> o.xid and l.entity_id = '1' and o.entity_id = '1'"
        ),
        r"^block 0",
    ),
    "swap two rows' messages": (SWAP.format("entity_id"), r"altered"),
    "swap two rows' times": (
        (
            "update audit_log set timestamp = case when timestamp = t.a then t.b else t.a end"
            " from (select min(timestamp) as a, max(timestamp) as b from audit_log"
            " where timestamp < '2026-02-01') t where timestamp in (t.a, t.b)"
        ),
        r"^block \d+ .* altered",
    ),
    "drop a partition": ("drop table audit_log_202602", r"^block \d+ \(events from 2026-02.* no tombstone"),
    "detach a partition": ("alter table audit_log detach partition audit_log_202601", r"no tombstone"),
    "truncate": ("truncate audit_log", r"^block 0 .* no tombstone"),
    "edit a row of a partition by its own name": (
        "update audit_log_202602 set message = 'nothing happened'",
        r"^block \d+ \(events from 2026-02",
    ),
}
EVERY_BLOCK = "its header|is missing|begins at row|does not take up|no sealed block has"
PROOF = {
    **{
        f"edit blocks.{name}": (f"update audit.blocks set {name} = {value} where block_no = 4", EVERY_BLOCK)
        for name, value in {
            "block_no": "99",
            "segment": "segment - 31",
            "previous_snapshot": "'1:1:'::pg_snapshot",
            "snapshot": "'9:9:'::pg_snapshot",
            "snapshot_xmax": "'9'::xid8",
            "first_position": "first_position + 1000",
            "row_count": "row_count + 1",
            "min_timestamp": "'-infinity'",
            "max_timestamp": "max_timestamp + interval '1 microsecond'",
            "rows_root": "sha256('x')",
            "leaf_hash": "sha256('x')",
            "sealed_at": "sealed_at - interval '1 day'",
            "epoch": "epoch + 1",
        }.items()
    },
    "edit blocks to a time before all times": (
        "update audit.blocks set sealed_at = '4000-01-01 BC' where block_no = 2",
        EVERY_BLOCK,
    ),
    "delete a block": ("delete from audit.blocks where block_no = 2", "^block 2 is missing"),
    "delete the last block": (
        "delete from audit.blocks where block_no = (select max(block_no) from audit.blocks)",
        "end was cut off|nodes over blocks",
    ),
    "swap two blocks": (
        (
            "update audit.blocks set block_no = 999 where block_no = 2;"
            " update audit.blocks set block_no = 2 where block_no = 3;"
            " update audit.blocks set block_no = 3 where block_no = 999"
        ),
        "^block 2 was altered",
    ),
    **{
        f"edit tree_nodes.{name}": (
            f"update audit.tree_nodes set {name} = {value} where level = 1 and node_index = 1",
            "^the tree in the database was altered: its node over blocks 2 to 3",
        )
        for name, value in {"hash": "sha256('x')", "level": "9", "node_index": "node_index + 100"}.items()
    },
    "add a node": ("insert into audit.tree_nodes values (9, 9, sha256('x'))", "nodes over blocks that are not there"),
    **{
        f"edit checkpoints.{name}": (
            f"update audit.checkpoints set {name} = {value} where tree_size = {OLDEST}",
            "^the checkpoint over|covers 99",
        )
        for name, value in {
            "tree_size": "99",
            "root": "sha256('x')",
            "row_count": "row_count + 1",
            "signed_at": "signed_at + interval '1 microsecond'",
            "key_id": "'00000000'",
            "note": "replace(note, 'rows', 'cows')",
        }.items()
    },
    "edit checkpoints.tree_size to nothing": (
        "update audit.checkpoints set tree_size = 0 where tree_size = (select min(tree_size) from audit.checkpoints)",
        "^the checkpoint over 0 blocks",
    ),
    "delete the newest checkpoint": (
        "delete from audit.checkpoints where tree_size = (select max(tree_size) from audit.checkpoints)",
        "no signed checkpoint covers the last",
    ),
    "swap two checkpoints' notes": (
        "update audit.checkpoints c set note = o.note from audit.checkpoints o where o.tree_size <> c.tree_size",
        "^the checkpoint over",
    ),
    "delete all that proves": (
        "truncate audit.blocks, audit.tree_nodes, audit.checkpoints",
        "^the log ends after 0 blocks .* its end was cut off",
    ),
    "delete all": (
        "set session_replication_role = replica; truncate audit_log, audit.blocks, audit.tree_nodes, audit.checkpoints",
        "^the log ends after 0 blocks",
    ),
}


@pytest.fixture
async def log(conn: asyncpg.Connection, ops_pool: db.Pool, auditor_pool: db.Pool, tmp_path: Path) -> SealedLog:
    """A sealed log without faults."""
    made = SealedLog(conn, ops_pool, auditor_pool, tmp_path, make_sealer(tmp_path))
    await made.fill()
    assert (await made.verify()).faults == []
    return made


async def expect(log: SealedLog, words: str) -> None:
    """Check the words of the first fault, wherever the rows are hashed."""
    faults = [str(fault) for fault in (await log.verify()).faults]
    assert faults != []
    assert re.search(words, faults[0]), faults
    assert [str(fault) for fault in (await log.verify(independent=True)).faults] == faults


@pytest.mark.parametrize("mutation", ROWS)
async def test_altered_rows_are_found(log: SealedLog, mutation: str) -> None:
    """As a superuser whose session fires no trigger."""
    statement, words = ROWS[mutation]
    await log.conn.execute(f"{UNCHECKED} set session_replication_role = replica; {statement}")
    await expect(log, words)


async def test_every_column_is_covered(log: SealedLog) -> None:
    """A column that is added later is hashed, or this test fails."""
    names = await log.conn.fetch(
        "select attname from pg_attribute where attrelid = 'audit_log'::regclass and attnum > 0 and not attisdropped"
    )
    assert {row[0] for row in names} == set(COLUMNS) == set(ALL_COLUMNS.split(", "))


@pytest.mark.parametrize("mutation", PROOF)
async def test_an_altered_proof_is_found(log: SealedLog, mutation: str) -> None:
    """Blocks, tree and checkpoints, each in its own case."""
    statement, words = PROOF[mutation]
    await log.conn.execute(statement)
    await expect(log, words)


@pytest.mark.parametrize("table", ["audit_log", "audit_log_202601"])
async def test_a_disabled_trigger_does_not_help(log: SealedLog, table: str) -> None:
    """The guard is gone, but the proof remains."""
    await log.conn.execute(f"alter table {table} disable trigger all; update {table} set message = 'quiet'")
    await expect(log, "^block 0 .* altered")


async def test_a_function_that_lies_is_not_asked(log: SealedLog) -> None:
    """A superuser can make the database hash an old copy; --independent hashes the rows of the table itself."""
    await log.conn.execute(
        "create table audit.copy as select * from audit_log; grant select on audit.copy to public;"
        "create or replace function audit._rows_between(p_previous pg_snapshot, p_snapshot pg_snapshot)"
        " returns setof public.audit_log language sql stable as $$"
        " select (row(c.*)::public.audit_log).* from audit.copy c"
        " where pg_visible_in_snapshot(c.xid, p_snapshot) and not pg_visible_in_snapshot(c.xid, p_previous) $$;"
        f"set session_replication_role = replica; {ROW.format('message = $$quiet$$')}"
    )
    assert (await log.verify()).faults == []
    [fault] = (await log.verify(independent=True)).faults
    assert re.search("^block 0 .* altered", str(fault))


async def test_an_honest_insert_is_no_fault(log: SealedLog) -> None:
    """A role that may write may add rows: they are sealed behind the older ones, and their block shows the time."""
    await log.conn.execute(insert(xid="pg_current_xact_id()"))
    report = await log.verify()
    assert (report.faults, report.unsealed) == ([], 1)
    await log.seal()
    report = await log.verify()
    assert (report.faults, report.unsealed) == ([], 0)


async def test_a_cut_tail_is_found(log: SealedLog) -> None:
    """Rows, blocks, nodes and checkpoints of the last pass are all removed together."""
    await log.conn.execute(
        "set session_replication_role = replica;"
        "delete from audit_log l using (select previous_snapshot from audit.blocks order by block_no desc limit 1) b"
        " where not pg_visible_in_snapshot(l.xid, b.previous_snapshot);"
        "delete from audit.checkpoints where tree_size = (select max(tree_size) from audit.checkpoints);"
        "delete from audit.blocks where block_no >= (select max(tree_size) from audit.checkpoints);"
        "delete from audit.tree_nodes where (node_index + 1) << level > (select max(tree_size) from audit.checkpoints)"
    )
    await expect(log, r"^the log ends after \d+ blocks with \d+ rows, and the checkpoint of .* its end was cut off")


async def forge_all(log: SealedLog, home: Path) -> None:
    """Change every row and seal all anew, correctly, with the key in home; clear the sealer's memory."""
    await log.conn.execute(
        "set session_replication_role = replica; update audit_log set message = 'all is well';"
        "truncate audit.blocks, audit.tree_nodes, audit.checkpoints, audit.signing_keys;"
        "update installation set log_begun_at = null;"
        "set session_replication_role = origin; update audit.sealer set lease_until = '-infinity'"
    )
    forger = make_sealer(home, holder="forger")
    forger.keys.memory.path.write_text("{}\n")
    await forger.seal(log.writer)
    assert await log.conn.fetchval("select count(*) from audit.blocks") > 1


async def test_a_log_that_was_written_anew_is_found(log: SealedLog, tmp_path: Path) -> None:
    """The forger's key is in audit.signing_keys, which verification does not trust."""
    await forge_all(log, tmp_path / "forger")
    await expect(log, "is not valid: no known key signed the note|are not those that were sealed")


async def test_a_log_that_was_written_anew_under_the_true_key_is_found(log: SealedLog) -> None:
    """A stolen key does not help: the old checkpoints remain outside."""
    await forge_all(log, log.home)
    await expect(log, "^blocks 0 to .* are not those that were sealed: the checkpoint of .* it is the first one")


async def test_a_past_that_was_written_anew_without_a_key_is_found(log: SealedLog) -> None:
    """Blocks and tree match the new rows, but the old signatures remain."""
    notes = await log.conn.fetch("select tree_size, note from audit.checkpoints order by tree_size")
    await forge_all(log, log.home)
    await log.conn.execute("delete from audit.checkpoints")
    for row in notes:
        await log.conn.execute(
            "insert into audit.checkpoints select $1, sha256('x'), 1, now(), 'x', $2", row["tree_size"], row["note"]
        )
    await expect(log, "are not those that were sealed|was altered")


async def tombstone(log: SealedLog, key: SignerKey, *, segment: str = "2026-01-01") -> str:
    """Return a tombstone of a month, correct except for its signer. The month's rows still exist."""
    blocks = await log.conn.fetch(
        "select block_no, row_count, leaf_hash from audit.blocks where segment = $1::text::date order by block_no",
        segment,
    )
    return await bury(log, key, segment=segment, blocks=blocks)


async def test_a_month_with_a_signed_tombstone_is_let_go(log: SealedLog) -> None:
    """Rows that retention dropped are no fault; released rows that still exist are one."""
    await tombstone(log, log.sealer.keys.load())
    await expect(log, r"^block 0 .* was released, but still has rows")
    await log.conn.execute("drop table audit_log_202601")
    report = await log.verify()
    assert report.faults == []
    assert report.released > 0
    assert report.hashed == report.rows == await log.conn.fetchval("select count(*) from audit_log")


async def test_what_comes_late_into_a_month_that_was_let_go_counts_anew(log: SealedLog) -> None:
    """Such a row is sealed in a block after the tombstone's."""
    await tombstone(log, log.sealer.keys.load())
    await log.conn.execute("drop table audit_log_202601")
    await log.write(3, timestamp="2026-01-09")
    await log.seal()
    assert (await log.verify()).faults == []
    await log.conn.execute(
        "set session_replication_role = replica; delete from audit_log where timestamp < '2026-02-01'"
    )
    await expect(log, r"^block \d+ .* should have 3 rows and has none")


async def test_a_forged_tombstone_is_found(log: SealedLog) -> None:
    """The month is dropped, and its tombstone is signed by another key of the same name."""
    await tombstone(log, SignerKey("pulse.test/audit", Ed25519PrivateKey.generate()))
    await log.conn.execute("drop table audit_log_202601")
    await expect(log, "^the tombstone of 2026-01 is forged: no known key signed the note")


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        ("segment = '2026-02-01'", "^the tombstone of 2026-02 was altered"),
        ("first_block = first_block + 1", "was altered"),
        ("last_block = last_block + 1", "was altered"),
        ("row_count = row_count + 1", "was altered"),
        ("note = replace(note, 'tombstone 2026-01-01', 'tombstone 2026-02-01')", "forged"),
        ("note = (select note from audit.checkpoints limit 1)", "no tombstone of this log"),
    ],
)
async def test_an_edited_tombstone_is_found(log: SealedLog, edit: str, words: str) -> None:
    """A valid tombstone is edited to describe another month or other blocks."""
    await tombstone(log, log.sealer.keys.load())
    await log.conn.execute(f"drop table audit_log_202601; update audit.tombstones set {edit}")
    await expect(log, words)


async def test_a_tombstone_of_other_blocks_is_found(log: SealedLog) -> None:
    """It is signed by the true key, over a root that no blocks of the month have."""
    rows = await log.conn.fetch(
        "select block_no, row_count, sha256('x') from audit.blocks where segment = '2026-01-01'"
    )
    await bury(log, log.sealer.keys.load(), segment="2026-01-01", blocks=rows)
    await expect(log, "is not about blocks")


async def test_kept_checkpoints_are_read_with_their_signatures(log: SealedLog) -> None:
    """A checkpoint that was edited in its storage is no proof."""
    file = next(log.checkpoints.iterdir())
    text = file.read_text()
    file.write_text(text.replace("rows ", "rows 1", 1))
    await expect(log, "holds a checkpoint .* that no known key signed: the signature of .* is false")
    file.write_text(text[:150] + text)
    assert (await log.verify()).faults == []


async def test_since_hashes_less_and_still_counts_all(log: SealedLog) -> None:
    """An edit before the time is not searched for, a missing row is, and the tree is always checked whole."""
    since = await log.conn.fetchval("select max(sealed_at) from audit.blocks")
    report = await log.verify(since=since)
    assert report.faults == []
    assert 0 < report.hashed < report.rows
    await log.conn.execute(
        f"set session_replication_role = replica; {ROW.format('message = null')}".replace("null", "''")
    )
    assert (await log.verify(since=since)).faults == []
    await log.conn.execute(f"delete from audit_log where {ONE}")
    faults = [str(fault) for fault in (await log.verify(since=since)).faults]
    assert [
        re.search("^2026-01 has .* rows of transactions that were sealed, and its blocks hold", f) for f in faults
    ] != []
