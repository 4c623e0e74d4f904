"""The sealer: every committed audit row is in exactly one block under the signed root."""

import asyncio
import random
from datetime import UTC, datetime
from pathlib import Path

import asyncpg
import pytest

from services.ops_worker.sealing.sealer import Sealer
from services.ops_worker.sealing.standing import LogBroken
from services.shared import db
from services.shared.sealed_log import tree
from services.shared.sealed_log.appending import make_blocks
from services.shared.sealed_log.key_file import KeyFile
from services.shared.sealed_log.note import open_checkpoint
from services.shared.settings import UiSettings
from tests.support.plans import rows_touched
from tests.support.wait import until


@pytest.fixture
def sealer(tmp_path: Path) -> Sealer:
    """A sealer with its own key."""
    return make_sealer(tmp_path)


def make_sealer(path: Path, *, holder: str = "one", rows: int = 1000) -> Sealer:
    """Return a sealer. Sealers of one path share a key."""
    return Sealer(holder, KeyFile(path / "signing.key", "pulse.test/audit"), rows_per_pass=rows, lease_seconds=10.0)


async def write(conn: asyncpg.Connection, count: int = 1, *, timestamp: str = "now") -> None:
    """Write so many events in one transaction."""
    await conn.execute(
        "select audit.write(array(select audit.event('acme', 'alert.opened', p_entity_id => n::text,"
        f" p_timestamp => '{timestamp}'::timestamptz, p_details => jsonb_build_object('n', n))"
        " from generate_series(1, $1) n))",
        count,
    )


async def sealed(conn: asyncpg.Connection) -> int:
    """Return the number of rows by the log's blocks."""
    return int(await conn.fetchval("select coalesce(sum(row_count), 0) from audit.blocks"))


async def test_rows_are_sealed_once(conn: asyncpg.Connection, ops_pool: db.Pool, sealer: Sealer) -> None:
    """A pass seals the committed rows, the next one seals none twice, and the checkpoint counts each once."""
    await write(conn, 3)
    await sealer.seal(ops_pool)
    await sealer.seal(ops_pool)
    await write(conn, 2)
    await sealer.seal(ops_pool)
    assert await sealed(conn) == await conn.fetchval("select count(*) from audit_log")
    note = await conn.fetchval("select note from audit.checkpoints order by tree_size desc limit 1")
    checkpoint = open_checkpoint(note, sealer.keys.verifiers())
    leaves = [row[0] for row in await conn.fetch("select leaf_hash from audit.blocks order by block_no")]
    assert checkpoint.root == tree.root_of(leaves)
    assert (checkpoint.tree_size, checkpoint.row_count) == (len(leaves), await sealed(conn))


async def test_a_late_commit_is_not_skipped(
    conn: asyncpg.Connection, database_url: str, ops_pool: db.Pool, sealer: Sealer
) -> None:
    """A transaction that stayed open while later ones were sealed is in the block after its commit."""
    late = await asyncpg.connect(database_url)
    transaction = late.transaction()
    await transaction.start()
    await write(late, 2)
    await write(conn, 1)
    await sealer.seal(ops_pool)
    before = await sealed(conn)
    await transaction.commit()
    await late.close()
    await sealer.seal(ops_pool)
    assert await sealed(conn) == before + 2 == await conn.fetchval("select count(*) from audit_log")
    found = await conn.fetch(
        "select row_count, (select count(*) from audit._rows_between(previous_snapshot, snapshot)) from audit.blocks"
    )
    assert all(counted == read for counted, read in found)


async def test_a_pass_reads_what_is_new_and_no_more(
    conn: asyncpg.Connection, database_url: str, ops_pool: db.Pool, tmp_path: Path
) -> None:
    """The cost is independent of the sealed rows, open transactions and statistics."""
    sealer = make_sealer(tmp_path, rows=100_000)
    await conn.execute("select ops.ensure_partitions()")
    for _ in range(4):
        await write(conn, 5000)
        await sealer.seal(ops_pool)
    late = await asyncpg.connect(database_url)
    transaction = late.transaction()
    await transaction.start()
    await write(late, 3)
    for analyzed in (False, True):
        if analyzed:
            await conn.execute("analyze audit_log")
        await write(conn, 10)
        await sealer.seal(ops_pool)
        await write(conn, 10)
        touched = await rows_touched(conn, "select * from audit.read_unsealed(100000)")
        assert sum(rows for table, rows in touched.items() if table.startswith("audit_log")) <= 100, analyzed
    await transaction.commit()
    await late.close()
    touched = await rows_touched(conn, "select * from audit.read_unsealed(100000)")
    assert sum(rows for table, rows in touched.items() if table.startswith("audit_log")) <= 100
    await sealer.seal(ops_pool)
    assert await sealed(conn) == await conn.fetchval("select count(*) from audit_log")


async def test_a_rollback_leaves_nothing(
    conn: asyncpg.Connection, database_url: str, ops_pool: db.Pool, sealer: Sealer
) -> None:
    """An aborted transaction that was open across passes is in no block."""
    late = await asyncpg.connect(database_url)
    transaction = late.transaction()
    await transaction.start()
    await write(late, 2)
    await write(conn, 1)
    await sealer.seal(ops_pool)
    await transaction.rollback()
    await late.close()
    await write(conn, 1)
    await sealer.seal(ops_pool)
    assert await sealed(conn) == await conn.fetchval("select count(*) from audit_log")


async def test_a_backlog_is_cut_between_transactions(
    conn: asyncpg.Connection, ops_pool: db.Pool, tmp_path: Path
) -> None:
    """A pass takes about its batch. A larger transaction is taken whole."""
    sealer = make_sealer(tmp_path, rows=10)
    for count in (4, 4, 4, 50, 3):
        await write(conn, count)
    taken = []
    while await sealed(conn) < 65:
        await sealer.seal(ops_pool)
        taken.append(await sealed(conn))
    assert taken == [8, 12, 62, 65]


async def test_each_month_has_blocks_of_its_own(conn: asyncpg.Connection, ops_pool: db.Pool, sealer: Sealer) -> None:
    """Blocks follow the timestamp, independent of the partition, so that a month can be dropped whole."""
    await write(conn, 2, timestamp="2001-01-31 23:59:59.999999Z")
    await write(conn, 3, timestamp="2001-02-01 00:00Z")
    await sealer.seal(ops_pool)
    rows = await conn.fetch("select segment::text, row_count, first_position from audit.blocks order by block_no")
    assert [tuple(row) for row in rows] == [("2001-01-01", 2, 0), ("2001-02-01", 3, 2)]


async def test_sealers_take_turns(conn: asyncpg.Connection, ops_pool: db.Pool, tmp_path: Path) -> None:
    """Only the lease holder seals. After expiry the next sealer continues, and the epoch fences the first."""
    one, two = make_sealer(tmp_path), make_sealer(tmp_path, holder="two")
    await write(conn)
    await one.seal(ops_pool)
    await write(conn)
    await two.seal(ops_pool)
    assert await sealed(conn) == 1
    await conn.execute("update audit.sealer set lease_until = '-infinity'")
    await two.seal(ops_pool)
    assert await sealed(conn) == 2
    assert [row[0] for row in await conn.fetch("select epoch from audit.blocks order by block_no")] == [1, 2]
    assert not await ops_pool.fetchval(
        "select audit.append_blocks('one', 1, '[{\"block_no\": 2}]'::text::jsonb, '{}', '{}', '{}', '{}')"
    )
    # The holder itself appends nothing under an earlier lease, appends nothing twice and leaves no gap.
    for epoch, number in ((1, 2), (2, 1), (2, 3)):
        assert not await ops_pool.fetchval(
            "select audit.append_blocks('two', $1, $2::text::jsonb, '{}', '{}', '{}', '{}')",
            epoch,
            f'[{{"block_no": {number}}}]',
        )


async def test_only_the_holder_of_the_lease_cuts_the_log(
    conn: asyncpg.Connection, ops_pool: db.Pool, sealer: Sealer
) -> None:
    """The cut removes the blocks with their nodes and checkpoints, and no other."""
    for _ in range(4):
        await write(conn)
        await sealer.seal(ops_pool)
    counts = (
        "select (select count(*) from audit.blocks), (select count(*) from audit.tree_nodes),"
        " (select max(tree_size) from audit.checkpoints)"
    )
    whole = await conn.fetchrow(counts)
    assert tuple(whole) == (4, 3, 4)
    epoch = await conn.fetchval("select epoch from audit.sealer")
    cut = "select audit.cut_log($1, $2, 3)"
    for holder, number in (("two", epoch), ("one", epoch - 1)):
        assert await ops_pool.fetchval(cut, holder, number) is False
        assert await conn.fetchrow(counts) == whole
    assert await ops_pool.fetchval(cut, "one", epoch) is True
    assert tuple(await conn.fetchrow(counts)) == (3, 1, 3)


async def test_a_sealed_block_wakes_readers(conn: asyncpg.Connection, ops_pool: db.Pool, sealer: Sealer) -> None:
    heard: list[str] = []
    await conn.add_listener("pulse_audit_sealed", lambda *arguments: heard.append(str(arguments[2])))
    await write(conn)
    await sealer.seal(ops_pool)
    await conn.execute("select 1")
    assert heard == ["pulse_audit_sealed"]
    await sealer.seal(ops_pool)
    await conn.execute("select 1")
    assert heard == ["pulse_audit_sealed"]
    await conn.reset()


async def test_no_sealer_keeps_the_lease_for_long(conn: asyncpg.Connection, ops_pool: db.Pool) -> None:
    """The lease is limited to a minute, so that no caller stops sealing for good."""
    for seconds in ("60.001", "3e9", "'Infinity'", "'NaN'"):
        with pytest.raises(asyncpg.PostgresError, match="at most 60 seconds") as refused:
            await ops_pool.execute(f"select audit.lease_seal('evil', {seconds})")
        assert refused.value.sqlstate == "PU422"
    assert await ops_pool.fetchval("select audit.lease_seal('one', 60)") is not None
    assert await conn.fetchval("select lease_until <= clock_timestamp() + interval '60 seconds' from audit.sealer")


async def test_a_new_key_is_on_record(conn: asyncpg.Connection, ops_pool: db.Pool, sealer: Sealer) -> None:
    """The first key is not a change. A rotation is an event of the trail."""
    await write(conn)
    await sealer.seal(ops_pool)
    key = sealer.keys.rotate()
    await write(conn)
    await sealer.seal(ops_pool)
    rows = await conn.fetch("select entity_id, actor_id from audit_log where event_type = 'audit.key_changed'")
    assert [tuple(row) for row in rows] == [(key.verifier.key_id, "one")]
    await sealer.seal(ops_pool)
    assert await sealed(conn) == await conn.fetchval("select count(*) from audit_log")


async def test_many_writers_and_two_sealers_skip_no_row(
    conn: asyncpg.Connection, database_url: str, ops_pool: db.Pool, tmp_path: Path
) -> None:
    """With random delays, aborts and concurrent sealing, the log has each committed row once."""
    randomness = random.Random(7)
    writing = True

    async def writer(seed: int) -> None:
        chance = random.Random(seed)
        connection = await asyncpg.connect(database_url)
        for _ in range(12):
            transaction = connection.transaction()
            await transaction.start()
            await write(connection, chance.randint(1, 4))
            await connection.execute("select pg_sleep($1)", chance.random() / 50)
            await (transaction.commit() if chance.random() < 0.8 else transaction.rollback())
        await connection.close()

    async def seal(holder: str) -> None:
        sealer = make_sealer(tmp_path, holder=holder, rows=randomness.randint(5, 50))
        rival = await asyncpg.connect(database_url)
        while writing:
            await sealer.seal(ops_pool)
            if randomness.random() < 0.2:
                await rival.execute("update audit.sealer set lease_until = '-infinity'")
        await rival.close()

    sealing = [asyncio.create_task(seal(holder)) for holder in ("one", "two")]
    await asyncio.gather(*(writer(seed) for seed in range(16)))
    writing = False
    await asyncio.gather(*sealing)
    await conn.execute("update audit.sealer set lease_until = '-infinity'")
    last = make_sealer(tmp_path, holder="last", rows=10_000)
    for _ in range(2):  # the first pass may only append a block that was signed but not committed
        await last.seal(ops_pool)
    assert await sealed(conn) == await conn.fetchval("select count(*) from audit_log")
    doubles = await conn.fetchval(
        "select count(*) from (select l.event_id from audit.blocks b, audit._rows_between(b.previous_snapshot,"
        " b.snapshot) l where audit._segment(l.timestamp) = b.segment group by 1 having count(*) > 1) d"
    )
    assert doubles == 0


@pytest.mark.parametrize(
    ("tampering", "words"),
    [
        ("delete from audit.blocks where block_no = 1", "not the one that was signed|damaged|cut off"),
        ("update audit.tree_nodes set hash = sha256('x')", "not the one that was signed"),
        ("update audit.checkpoints set note = replace(note, 'rows', 'cows')", "damaged"),
        ("delete from audit.checkpoints", "damaged"),
    ],
)
async def test_nothing_is_added_to_a_log_that_was_altered(
    conn: asyncpg.Connection, ops_pool: db.Pool, sealer: Sealer, tampering: str, words: str
) -> None:
    """The sealer stops and reports it once in the trail and in an alert."""
    for _ in range(2):
        await write(conn)
        await sealer.seal(ops_pool)
    await conn.execute(tampering)
    await write(conn)
    for _ in range(2):
        with pytest.raises(LogBroken, match=words):
            await sealer.seal(ops_pool)
        # The command that answers the alarm needs the lease.
        assert await conn.fetchval("select lease_until <= clock_timestamp() from audit.sealer")
    assert await conn.fetchval("select count(*) from audit_log where event_type = 'audit.log_broken'") == 1
    alerts = await conn.fetch("select severity, status from alerts where fingerprint = 'audit:log'")
    assert [tuple(alert) for alert in alerts] == [("critical", "open")]


async def test_a_server_with_fewer_transactions_is_not_sealed(
    conn: asyncpg.Connection, ops_pool: db.Pool, sealer: Sealer
) -> None:
    """A dump loaded elsewhere would mix new rows with sealed ones. The sealer reports the cause."""
    await write(conn)
    await sealer.seal(ops_pool)
    await conn.execute("update audit.blocks set snapshot = '9000000000:9000000000:'")
    with pytest.raises(asyncpg.PostgresError, match="not the server that was sealed"):
        await ops_pool.fetch("select * from audit.read_unsealed(10)")


@pytest.mark.parametrize("rows", [1, 2, 3, 8, 9, 21])
async def test_a_transaction_too_large_for_one_value_comes_in_pieces(
    conn: asyncpg.Connection, ops_pool: db.Pool, rows: int
) -> None:
    """The root over the pieces' roots is the root over all leaves."""
    await write(conn, rows)
    query = "select *, now() as sealed_at from audit.read_unsealed(100000, $1)"
    whole, pieces = [await ops_pool.fetch(query, piece) for piece in (1 << 20, 4)]
    assert max(len(piece["leaves"]) for piece in pieces) <= 4 * 32
    *_, one = make_blocks(whole, first=0, position=0, epoch=1)
    *_, other = make_blocks(pieces, first=0, position=0, epoch=1)
    assert (one.rows_root, one.row_count) == (other.rows_root, other.row_count)


async def test_a_read_may_take_longer_than_other_statements(
    conn: asyncpg.Connection, ops_url: str, tmp_path: Path
) -> None:
    """Reading a backlog or one huge transaction may take long. The lease is renewed meanwhile."""
    await write(conn, 2000)
    await conn.execute(
        "alter function audit._leaf_hash(audit_log) rename to _fast;"
        "create function audit._leaf_hash(p_row audit_log) returns bytea language plpgsql stable as"
        " $$ begin if p_row.entity_id = '1000' then perform pg_sleep(2); end if; return audit._fast(p_row); end $$;"
        "grant execute on function audit._leaf_hash to pulse_owner"
    )
    pool = await db.open_pool(UiSettings(database_url=ops_url, command_timeout_seconds=1))
    sealer = Sealer("slow", KeyFile(tmp_path / "signing.key", "n"), rows_per_pass=100_000, lease_seconds=1.0)
    await sealer.seal(pool)
    await pool.close()
    assert await sealed(conn) == await conn.fetchval("select count(*) from audit_log")
    assert await conn.fetchval("select epoch from audit.blocks limit 1") == 1


async def test_the_lease_is_renewed_during_a_pass(
    conn: asyncpg.Connection, database_url: str, ops_pool: db.Pool, tmp_path: Path
) -> None:
    await write(conn)
    await conn.execute(
        "alter function audit._leaf_hash(audit_log) rename to _fast;"
        "create function audit._leaf_hash(p_row audit_log) returns bytea language plpgsql stable as"
        " $$ begin perform pg_advisory_xact_lock_shared(7); return audit._fast(p_row); end $$;"
        "grant execute on function audit._leaf_hash to pulse_owner"
    )
    gate = await asyncpg.connect(database_url)
    await gate.execute("select pg_advisory_lock(7)")
    sealer = Sealer("slow", KeyFile(tmp_path / "signing.key", "n"), rows_per_pass=100, lease_seconds=1.0)
    sealing = asyncio.create_task(sealer.seal(ops_pool))

    query = "select lease_until from audit.sealer where holder = 'slow' and lease_until > $1"
    first = await until(lambda: conn.fetchval(query, datetime.min.replace(tzinfo=UTC)))
    await until(lambda: conn.fetchval(query, first))
    await gate.close()
    assert await sealing > 0


async def test_a_stopping_sealer_makes_way(conn: asyncpg.Connection, ops_pool: db.Pool, tmp_path: Path) -> None:
    """The next sealer does not wait for the lease, even if the clock was set back."""
    one, two = make_sealer(tmp_path), make_sealer(tmp_path, holder="two")
    await one.seal(ops_pool)
    await one.release(ops_pool)
    await write(conn)
    await two.seal(ops_pool)
    assert await sealed(conn) == await conn.fetchval("select count(*) from audit_log")
    await conn.execute("update audit.sealer set lease_until = now() + interval '1 hour'")
    await write(conn)
    await one.seal(ops_pool)
    assert await sealed(conn) == await conn.fetchval("select count(*) from audit_log")


async def test_a_key_that_cannot_be_used_stops_sealing_only(
    conn: asyncpg.Connection, ops_pool: db.Pool, sealer: Sealer, caplog: pytest.LogCaptureFixture
) -> None:
    """It is reported once. With the key back, sealing continues."""
    sealer.keys.load()
    sealer.keys.path.chmod(0o644)
    await write(conn)
    for _ in range(3):
        assert await sealer.seal(ops_pool) == 0
    assert [record.message for record in caplog.records if "nothing is sealed" in record.message] == [
        f"nothing is sealed: {sealer.keys.path} is open to others (mode 0644); chmod 600 it"
    ]
    sealer.keys.path.chmod(0o600)
    await sealer.seal(ops_pool)
    assert await sealed(conn) == await conn.fetchval("select count(*) from audit_log")
