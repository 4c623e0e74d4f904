"""The sealed log when its database moves: restored dumps, copies, failovers, point-in-time recovery."""

from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import psycopg
import pytest
from alembic.util import CommandError

from services.cli.audit.continuing import continue_log
from services.cli.errors import CommandFailed
from services.local.postgres.server import EmbeddedPostgres
from services.ops_worker.sealing.standing import LogBroken
from services.shared.sealed_log.entry import Entry
from services.shared.sealed_log.kept import read_kept
from tests.support.exported import check, export
from tests.support.hardened_server import make_deployer
from tests.support.migrator import Migrator
from tests.support.moved_database import physical_servers, restore, sealed_log, spend_transactions
from tests.support.postgres_server import PASSWORD, throwaway_server
from tests.support.sealed_log import SealedLog
from tests.support.wait import until

DEBIAN_15 = "/usr/lib/postgresql/15/bin/postgres"


@pytest.fixture(scope="module")
def other_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    """A second server, with the roles that the first one's dumps grant to."""
    with throwaway_server(tmp_path_factory.mktemp("other")) as server:
        with psycopg.connect(server.url(), autocommit=True) as session:
            make_deployer(session, PASSWORD)
        Migrator(server.url()).upgrade()
        yield server


async def continue_at(log: SealedLog, blocks: int, reason: str = "db-1 died") -> Entry:
    """Run `pulse audit continue` after the earlier sealer has stopped, and return its output."""
    await log.sealer.release(log.writer)
    keys = log.sealer.keys
    kept = read_kept(log.checkpoints, keys.verifiers())
    return await continue_log(
        log.writer, keys, keys.load(), kept, blocks=blocks, named=None, reason=reason, directory=log.checkpoints
    )


async def blocks_of(log: SealedLog) -> int:
    """Size of the log."""
    return int(await log.conn.fetchval("select count(*) from audit.blocks"))


async def assert_all_is_sealed_once(log: SealedLog) -> None:
    """Check that every row lies in exactly one block for the proof, for readers and for the metrics."""
    rows = await log.conn.fetchval("select count(*) from audit_log")
    assert await log.conn.fetchval("select sum(row_count) from audit.blocks") == rows
    for independent in (False, True):
        report = await log.verify(independent=independent)
        assert (report.faults, report.rows, report.unsealed) == ([], rows, 0)
    for newest_first in (False, True):
        seen = await page_through(log, newest_first=newest_first)
        assert len(seen) == len(set(seen)) == rows
    assert await log.conn.fetchval("select audit._unsealed_count(100)") == 0


async def page_through(log: SealedLog, *, newest_first: bool) -> list[str]:
    """Return every event that the API's pages give."""
    seen: list[str] = []
    place = None
    while True:
        page = await log.reader.fetchval(
            "select audit.read_all_events(null, '{}'::jsonb, $1::jsonb, $2, 7)", place, newest_first
        )
        seen += [event["event_id"] for event in page["events"]]
        place = page["place"]
        if page["is_last"]:
            return seen


async def seal_all(log: SealedLog) -> None:
    """Run passes until nothing is left. The first may only announce a change."""
    await log.seal()
    while await log.sealer.seal(log.writer):
        pass
    await log.seal()


@pytest.mark.parametrize("ahead", [0, pytest.param(30_000, marks=pytest.mark.slow)])
async def test_a_restored_dump_is_sealed_exactly_once(
    log: SealedLog, other_server: EmbeddedPostgres, database_url: str, ahead: int
) -> None:
    """The new server's counter may be behind or ahead, and rows may precede the sealer's first pass."""
    spend_transactions(database_url, 3000)
    late = await asyncpg.connect(database_url)
    transaction = late.transaction()
    await transaction.start()
    await late.execute("select audit.write(array[audit.event('acme', 'alert.opened')])")
    await log.write(2)
    await log.seal()
    await transaction.commit()
    await late.close()
    await log.write(3)
    old_export = await export(log)
    old_size = await blocks_of(log)
    name = f"moved_{ahead}"
    other_server.ensure_database(name)
    url = other_server.url(database=name)
    if ahead:
        spend_transactions(url, ahead)
    restore(database_url, url)
    async with sealed_log(url, log.home) as moved:
        await moved.write(4)
        await moved.write(2, timestamp="2026-01-16 08:00Z")
        waiting = await moved.verify()
        # One that was open, three, six here, and the export's own record.
        assert (waiting.faults, waiting.unsealed) == ([], 11)
        assert await moved.sealer.seal(moved.writer) == 0
        status = moved.sealer.status
        assert (status.state, status.reason) == ("refused", "moved")
        assert f"`pulse audit continue --from-checkpoint {old_size} --reason TEXT`" in status.message
        assert await blocks_of(moved) == old_size
        assert await moved.conn.fetchval("select count(*) from audit_log where event_type = 'audit.log_broken'") == 0
        await moved.write(1)
        with pytest.raises(CommandFailed, match=f"ends at checkpoint {old_size}, not 3"):
            await continue_at(moved, 3)
        entry = await continue_at(moved, old_size)
        assert (entry.before.epoch, entry.after.epoch, entry.size, entry.lost) == (0, 1, old_size, None)
        await moved.write(3)
        await seal_all(moved)
        await assert_all_is_sealed_once(moved)
        report = await moved.verify()
        assert [one.in_words().partition(" on ")[0] for one in report.entries] == ["was continued"]
        event = await moved.conn.fetchrow("select * from audit_log where event_type = 'audit.log_continued'")
        assert (event["actor_type"], event["severity"]) == ("user", "warning")
        assert f"from checkpoint {old_size} after restore: db-1 died" in event["message"]
        assert event["actor_id"] == entry.actor != ""
        # Old and new exports verify without a database.
        assert (await check(log, old_export))[0] == 0
        status_now, said = await check(moved, await export(moved))
        assert status_now == 0
        assert f"from checkpoint {old_size} after restore: db-1 died" in said
        with pytest.raises(CommandFailed, match="nothing to continue"):
            await continue_at(moved, await blocks_of(moved))


async def test_the_log_survives_its_revision(log: SealedLog, database_url: str) -> None:
    """The downgrade succeeds unless the log holds entries that the older revision cannot represent."""
    migrator = Migrator(database_url)
    migrator.downgrade("0003")
    migrator.upgrade()
    await log.write(2)
    await log.seal()
    await assert_all_is_sealed_once(log)
    log.sealer.keys.rotate()
    await log.seal()
    with pytest.raises(CommandError, match="can neither seal nor verify it"):
        migrator.downgrade("0003")
    assert (await log.verify()).faults == []


async def test_an_epoch_without_its_entry_is_found(
    log: SealedLog, other_server: EmbeddedPostgres, database_url: str
) -> None:
    """An attacker with the database but without the key cannot continue the log elsewhere."""
    other_server.ensure_database("forged")
    restore(database_url, other_server.url(database="forged"))
    async with sealed_log(other_server.url(database="forged"), log.home) as moved:
        await continue_at(moved, await blocks_of(moved))
        await seal_all(moved)
        await moved.conn.execute(
            "update audit.blocks set entry = replace(entry, 'db-1 died', 'db-1 lied') where entry is not null"
        )
        with pytest.raises(LogBroken, match="newest entry of the log is damaged"):
            await moved.sealer.seal(moved.writer)
        assert "block 10 was altered" in str((await moved.verify()).faults[0])


@pytest.mark.slow
async def test_a_second_restore_of_the_same_dump_is_another_epoch(
    log: SealedLog, other_server: EmbeddedPostgres, database_url: str
) -> None:
    """The dump moves from one new server to the next, even before the log was continued in between."""
    urls = []
    for name in ("first_move", "second_move"):
        other_server.ensure_database(name)
        urls.append(other_server.url(database=name))
    restore(database_url, urls[0])
    async with sealed_log(urls[0], log.home) as moved:
        await moved.sealer.seal(moved.writer)
        await moved.write(2)
    restore(urls[0], urls[1])
    async with sealed_log(urls[1], log.home) as moved:
        await moved.write(2)
        await moved.sealer.seal(moved.writer)
        entry = await continue_at(moved, await blocks_of(moved))
        assert entry.after.epoch == 2
        await seal_all(moved)
        await assert_all_is_sealed_once(moved)


async def test_a_copy_on_the_same_server_is_not_sealed_by_itself(log: SealedLog, database_url: str) -> None:
    """Otherwise original and copy would start two histories of one log."""
    name = urlsplit(database_url).path.strip("/")
    copy = f"{name}_copy"
    admin = database_url.replace(f"/{name}", "/postgres")
    with psycopg.connect(admin, autocommit=True) as session:
        session.execute(f"alter database {name} allow_connections false".encode())
        session.execute("select pg_terminate_backend(pid, 5000) from pg_stat_activity where datname = %s", [name])
        session.execute(f"create database {copy} template {name}".encode())
        session.execute(f"alter database {name} allow_connections true".encode())
    try:
        async with sealed_log(database_url.replace(f"/{name}", f"/{copy}"), log.home) as copied:
            await copied.write(2)
            await copied.sealer.seal(copied.writer)
            assert copied.sealer.status.reason == "moved"
            entry = await continue_at(copied, await blocks_of(copied))
            assert entry.before.epoch == entry.after.epoch == 0
            assert entry.before.database != entry.after.database
            await seal_all(copied)
            await assert_all_is_sealed_once(copied)
    finally:
        with psycopg.connect(admin, autocommit=True) as session:
            session.execute(f"drop database {copy} with (force)".encode())


@pytest.mark.slow
async def test_a_failover_that_lost_nothing_needs_no_operator(tmp_path: Path) -> None:
    """A promoted standby is sealed at once, and the log records the new timeline."""
    with physical_servers(None, None) as (primary, standby):
        Migrator(primary.url()).upgrade()
        standby_home = tmp_path / "audit"
        async with sealed_log(primary.url(), standby_home) as log:
            await log.write(5)
            await log.seal()
            standby.copy_from(primary, "-R", "-X", "stream")
            standby.start()
            await log.write(3)
            await log.seal()
            seen = log.sealer.history.seen
            await log.write(2)
        primary.stop()
        await promote(standby.url())
        async with sealed_log(standby.url(), standby_home) as log:
            log.sealer.history.seen = seen
            await log.write(2)
            await seal_all(log)
            assert log.sealer.status.state == "sealing"
            await assert_all_is_sealed_once(log)
            (entry,) = (await log.verify()).entries
            assert (entry.kind, entry.before.timeline, entry.after.timeline) == ("timeline", 1, 2)
            assert entry.before.epoch == entry.after.epoch == 0


@pytest.mark.slow
async def test_recovery_to_an_earlier_moment_is_continued_by_a_signed_entry(tmp_path: Path) -> None:
    """Signed blocks are missing, so the sealer stops until a person confirms, and names both heads."""
    with physical_servers(None, None) as (primary, restored):
        Migrator(primary.url()).upgrade()
        async with sealed_log(primary.url(), tmp_path / "audit") as log:
            await log.write(5)
            await log.seal()
            early = await blocks_of(log)
            restored.copy_from(primary, "-X", "stream")
            for _ in range(3):
                await log.write(3)
                await log.seal()
            late, seen = await blocks_of(log), log.sealer.history.seen
            assert late > early
        primary.stop()
        (restored.data / "recovery.signal").touch()
        with (restored.data / "postgresql.auto.conf").open("a") as file:
            file.write("restore_command = 'false'\nrecovery_target = 'immediate'\nrecovery_target_action = 'promote'\n")
        restored.start()
        await promoted(restored.url())
        async with sealed_log(restored.url(), tmp_path / "audit") as log:
            log.sealer.history.seen = seen
            await log.write(4)
            with pytest.raises(LogBroken, match=f"had {late} blocks and has {early}: its end was cut off"):
                await log.sealer.seal(log.writer)
            entry = await continue_at(log, early, reason="dropped a table by mistake")
            assert entry.lost is not None
            assert (entry.size, entry.lost.tree_size, entry.lost.root) == (early, late, seen and seen.root)
            await seal_all(log)
            for _ in range(4):
                await log.write(1)
                await log.seal()
            await assert_all_is_sealed_once(log)
            said = (await log.verify()).entries[0].in_words()
            assert f"checkpoints {early + 1} to {late} were lost" in said
            exported = await export(log)
            assert (await check(log, exported))[0] == 0
            newest = next(log.checkpoints.glob("checkpoints-*.log"))
            status, said = await check(log, exported, "--checkpoint", str(newest))
            assert status == 0, said


@pytest.mark.slow
async def test_an_upgraded_server_is_continued(tmp_path: Path, require: Callable[[str], str]) -> None:
    """pg_upgrade keeps the counter of transactions and makes a new system identifier."""
    with physical_servers(Path(require(DEBIAN_15)).parent, None) as (old, new):
        Migrator(old.url()).upgrade()
        async with sealed_log(old.url(), tmp_path / "audit") as log:
            await log.write(5)
            await log.seal()
            await log.write(3)
            size = await blocks_of(log)
        old.stop()
        new.upgrade_from(old)
        new.start()
        async with sealed_log(new.url(), tmp_path / "audit") as log:
            await log.write(2)
            assert await log.sealer.seal(log.writer) == 0
            assert log.sealer.status.reason == "moved"
            entry = await continue_at(log, size)
            assert (entry.before.epoch, entry.after.epoch) == (0, 1)
            assert entry.before.system != entry.after.system
            await seal_all(log)
            await assert_all_is_sealed_once(log)


async def promote(url: str) -> None:
    """Promote a standby."""
    connection = await asyncpg.connect(url)
    assert await connection.fetchval("select pg_promote(true, 60)")
    await connection.close()


async def promoted(url: str) -> None:
    """Wait until recovery has ended."""
    connection = await asyncpg.connect(url)
    await until(lambda: connection.fetchval("select not pg_is_in_recovery()"))
    await connection.close()


async def test_rows_of_a_server_that_no_sealer_saw_are_distinguished(
    log: SealedLog, other_server: EmbeddedPostgres, database_url: str
) -> None:
    """After two restores, the intermediate server's counter was ahead of the last one's."""
    name = urlsplit(database_url).path.strip("/")
    urls = [other_server.url(database="between"), database_url.replace(f"/{name}", f"/{name}_last")]
    admin = database_url.replace(f"/{name}", "/postgres")
    other_server.ensure_database("between")
    spend_transactions(urls[0], 3000)
    restore(database_url, urls[0])
    with psycopg.connect(urls[0]) as session:
        session.execute("select audit.write(array[audit.event('acme', 'alert.opened')])")
    with psycopg.connect(admin, autocommit=True) as session:
        session.execute(f"create database {name}_last".encode())
    try:
        restore(*urls)
        async with sealed_log(urls[1], log.home) as moved:
            await moved.write(2)
            entry = await continue_at(moved, await blocks_of(moved))
            assert entry.after.epoch == 2
            await seal_all(moved)
            await assert_all_is_sealed_once(moved)
    finally:
        with psycopg.connect(admin, autocommit=True) as session:
            session.execute(f"drop database {name}_last with (force)".encode())


async def test_a_log_without_blocks_is_not_to_be_continued(log: SealedLog, other_server: EmbeddedPostgres) -> None:
    """The checkpoints belong to another database. The message suggests no command that would fail."""
    async with sealed_log(other_server.url(), log.home) as empty:
        empty.sealer.history.seen = log.sealer.history.seen
        assert await empty.sealer.seal(empty.writer) == 0
        assert "a new log has its own directory" in empty.sealer.status.message
        with pytest.raises(CommandFailed, match="there is no log to continue"):
            await continue_at(empty, 0)
