"""The sealer never signs a second history. Its memory next to the key survives crashes and rollbacks."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import asyncpg
import orjson
import pytest

from services.ops_worker.main import make_sealer as make_sealer_of_settings
from services.ops_worker.sealing.consistency import is_consistent, needed_nodes
from services.ops_worker.sealing.standing import LogBroken
from services.shared import db
from services.shared.sealed_log.appending import Appender
from services.shared.sealed_log.entry import Extent
from services.shared.sealed_log.kept import find_garbage
from services.shared.sealed_log.memory import Memory, MemoryFault, MemoryFile
from services.shared.sealed_log.note import parse_unchecked
from services.shared.sealed_log.tree import Frontier, leaf_hash, root_of
from services.shared.settings import OpsSettings
from tests.support.audit_program import Pulse
from tests.support.exported import check, export
from tests.support.sealed_log import SealedLog, make_sealer

SEALED = ("audit.blocks", "audit.tree_nodes", "audit.checkpoints", "audit.signing_keys", "audit.tombstones")


@pytest.fixture
async def log(conn: asyncpg.Connection, ops_pool: db.Pool, auditor_pool: db.Pool, tmp_path: Path) -> SealedLog:
    """A sealed log of four blocks with key and checkpoints in the local stack's directories."""
    made = SealedLog(conn, ops_pool, auditor_pool, tmp_path / "audit", make_sealer(tmp_path / "audit"))
    for _ in range(4):
        await made.write(3)
        await made.seal()
    return made


@pytest.fixture
def pulse(tmp_path: Path, role_url: Callable[[str], str]) -> Pulse:
    """`pulse audit` on the machine of the ops worker."""
    made = Pulse(tmp_path, role_url("pulse_auditor"))
    made.settings = {"PULSE_OPS_DATABASE_URL": role_url("pulse_ops")}
    return made


async def restart(log: SealedLog) -> None:
    """Replace the process by one that knows only the files on disk."""
    await log.conn.execute("update audit.sealer set lease_until = '-infinity'")
    log.sealer = make_sealer(log.home, holder="next")


def forget_anchors(log: SealedLog) -> None:
    for file in log.checkpoints.iterdir():
        file.unlink()


async def save(log: SealedLog) -> None:
    """Save copies of the log's tables, like a delayed standby."""
    for table in (*SEALED, "public.audit_log"):
        name = "saved_" + table.replace(".", "_")
        await log.conn.execute(f"drop table if exists {name}; create temp table {name} as select * from {table}")


async def roll_back(log: SealedLog) -> None:
    """Restore the saved tables, bypassing the guards."""
    await log.conn.execute("set session_replication_role = replica")
    for table in (*SEALED, "public.audit_log"):
        name = "saved_" + table.replace(".", "_")
        await log.conn.execute(f"delete from {table}; insert into {table} select * from {name}")
    await log.conn.execute("set session_replication_role = origin")


async def signed(log: SealedLog) -> int:
    return int(await log.conn.fetchval("select count(*) from audit.checkpoints"))


async def refuses(log: SealedLog, words: str) -> None:
    """Check that neither this process nor the next one signs anything, whatever is written."""
    before = await signed(log)
    for _ in range(2):
        await log.write(1)
        with pytest.raises(LogBroken, match=words):
            await log.sealer.seal(log.writer)
        await restart(log)
    assert await signed(log) == before
    assert log.sealer.keys.memory.read().alarm is not None


@pytest.mark.slow
@pytest.mark.parametrize("rows", ["kept", "gone"])
async def test_emptied_tables_are_not_signed_anew(log: SealedLog, pulse: Pulse, rows: str) -> None:
    """Anchors are not needed. After a declared loss the log continues, and old exports still verify."""
    old_export = await export(log)
    public = log.home.parent / "taken-away.pub"
    public.write_bytes(log.sealer.keys.public_path.read_bytes())
    await log.conn.execute("set session_replication_role = replica")
    await log.conn.execute(f"truncate {', '.join(SEALED)}{', audit_log' if rows == 'gone' else ''}")
    await log.conn.execute("update installation set log_begun_at = null")
    await log.conn.execute("set session_replication_role = origin")
    forget_anchors(log)
    await restart(log)
    await refuses(log, "had 4 blocks and has 0.*declare-loss")
    assert "its end was cut off" in (await pulse("verify", "--keys", str(public), status=1)).stdout
    refused = await pulse("declare-loss", "--reason", "somebody truncated it", status=1)
    assert "up to checkpoint 0; checkpoints 1 to 4 would be declared lost; nothing was changed" in refused.stderr
    assert "add --at 0" in refused.stderr
    assert "add --at 0" in (await pulse("declare-loss", "--reason", "r", "--at", "3", status=1)).stderr
    done = await pulse("declare-loss", "--reason", "somebody truncated it", "--at", "0")
    assert "after a loss: somebody truncated it (by cli:" in done.stdout
    assert "checkpoints 1 to 4 were lost" in done.stdout
    await log.write(2)
    assert await log.sealer.seal(log.writer) >= 2
    await log.seal()
    shown = (await pulse("verify", "--keys", str(public))).stdout
    assert shown.startswith("All is as it was sealed")
    assert "checkpoints 1 to 4 were lost" in shown
    assert (await check(log, old_export))[0] == 0
    status, said = await check(log, await export(log))
    assert (status, "after a loss: somebody truncated it" in said) == (0, True)
    event = await log.conn.fetchrow("select * from audit_log where event_type = 'audit.loss_declared'")
    assert (event["severity"], event["actor_type"]) == ("critical", "user")
    assert "nothing to declare" in (await pulse("declare-loss", "--reason", "again", "--at", "6", status=1)).stderr


async def test_a_lost_end_is_not_signed_a_second_time(log: SealedLog, pulse: Pulse) -> None:
    """The state is that of an asynchronous failover without anchors, with other rows written meanwhile."""
    await save(log)
    for _ in range(3):
        await log.write(2)
        await log.seal()
    await roll_back(log)
    forget_anchors(log)
    await restart(log)
    await refuses(log, "had 7 blocks and has 4: its end was cut off")
    assert await log.conn.fetchval("select count(*) from audit_log where event_type = 'audit.log_broken'") == 2
    await pulse("declare-loss", "--reason", "failover", "--at", "4")
    # A process that ran all the time continues without help.
    for _ in range(3):
        await log.write(1)
        await log.seal()
    report = await log.verify()
    assert (report.faults, [entry.kind for entry in report.entries]) == ([], ["loss"])
    assert report.entries[0].lost == Extent(7, report.entries[0].lost.root if report.entries[0].lost else b"")


@pytest.mark.slow
async def test_a_second_break_raises_a_second_alarm(log: SealedLog, pulse: Pulse) -> None:
    """The same process sealed in between."""
    for alarms in (1, 2):
        await log.conn.execute("update audit.checkpoints set note = replace(note, 'rows', 'cows')")
        for _ in range(2):
            with pytest.raises(LogBroken, match="damaged"):
                await log.sealer.seal(log.writer)
        events = "select count(*) from audit_log where event_type = 'audit.log_broken'"
        assert await log.conn.fetchval(events) == alarms
        await log.conn.execute("update audit.checkpoints set note = replace(note, 'cows', 'rows')")
        size = await log.conn.fetchval("select max(tree_size) from audit.checkpoints")
        await pulse("declare-loss", "--reason", "put back", "--at", str(size))
        assert await log.sealer.seal(log.writer) > 0


@pytest.mark.slow
async def test_another_history_of_the_same_size_is_not_signed(log: SealedLog, pulse: Pulse) -> None:
    """Another machine signed with the same key. The log is cut back to the last common block."""
    await save(log)
    for _ in range(2):
        await log.write(2)
        await log.seal()
    await roll_back(log)
    # Older versions had no memory, so a copy of the key without it keeps sealing.
    copy = log.home.parent / "copy"
    copy.mkdir()
    (copy / "signing.key").write_bytes(log.sealer.keys.path.read_bytes())
    (copy / "signing.key").chmod(0o600)
    other = make_sealer(copy, holder="copy")
    await log.sealer.release(log.writer)
    for _ in range(3):
        await log.write(1)
        await other.seal(log.writer)
    await other.release(log.writer)
    await restart(log)
    await refuses(log, "has two histories: its first 6 blocks are not those that were signed")
    refused = await pulse("declare-loss", "--reason", "two sealers", status=1)
    assert "agrees with what was signed up to checkpoint 4; checkpoints 5 to 7 would be" in refused.stderr
    await pulse("declare-loss", "--reason", "two sealers", "--at", "4")
    await log.write(1)
    await log.seal()
    assert (await log.verify()).faults == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("tampering", "words"),
    [
        ("update audit.blocks set row_count = row_count + 1 where block_no = 3", "not the one that was signed"),
        ("delete from audit.tree_nodes", "is damaged"),
        ("delete from audit.checkpoints", "is damaged"),
    ],
)
async def test_an_alarm_outlives_the_process_and_its_cause(
    log: SealedLog, pulse: Pulse, tampering: str, words: str
) -> None:
    """A person must answer it, even if an intruder reverts the alteration."""
    await save(log)
    await log.conn.execute(tampering)
    await refuses(log, words)
    await roll_back(log)
    await restart(log)
    await refuses(log, words)
    assert "the sealer has stopped" in (await pulse("verify", status=1)).stdout
    refused = await pulse("declare-loss", "--reason", "put back", status=1)
    assert "up to checkpoint 4; nothing was changed" in refused.stderr
    await pulse("declare-loss", "--reason", "put back", "--at", "4")
    assert (await log.verify()).faults == []


async def test_the_wrong_database_raises_no_alarm_that_lasts(log: SealedLog) -> None:
    """A URL of another installation with this key: nothing is signed there, and here sealing continues."""
    await save(log)
    before = await signed(log)
    for change in ("installation_id = gen_random_uuid()", "installation_id = gen_random_uuid(), log_begun_at = null"):
        right = await log.conn.fetchval("select installation_id from installation")
        await log.conn.execute("set session_replication_role = replica")
        await log.conn.execute(f"truncate {', '.join(SEALED)}")
        await log.conn.execute("set session_replication_role = origin")
        await log.conn.execute(f"update installation set {change}")
        await restart(log)
        await log.write(1)
        assert await log.sealer.seal(log.writer) == 0
        assert log.sealer.status.reason == "moved"
        assert f"belong to the log of installation {right}" in log.sealer.status.message
        assert "PULSE_OPS_DATABASE_URL" in log.sealer.status.message
        assert log.sealer.keys.memory.read().alarm is None
        assert await signed(log) == 0
        await roll_back(log)
        await log.conn.execute("update installation set installation_id = $1", right)
    await restart(log)
    await log.write(1)
    await log.seal()
    assert await signed(log) > before


class Crash(Exception):
    """The simulated end of the process."""


async def test_what_was_kept_and_not_committed_is_the_only_thing_signed(
    log: SealedLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After any number of failed appends, the same bytes are appended again, even by the next process."""
    await log.write(3)

    async def crash(*_: Any) -> None:
        raise Crash

    with monkeypatch.context() as patched:
        patched.setattr(Appender, "append_intent", crash)
        with pytest.raises(Crash):
            await log.sealer.seal(log.writer)
    pending = log.sealer.keys.memory.read().pending
    assert pending is not None
    assert await signed(log) == 4
    await log.write(5)  # later rows are not in it
    # A database that accepts the note and then reports failure never gets a second signature of this size.
    await log.conn.execute(
        "alter function audit.append_blocks rename to _real; create function audit.append_blocks(text, bigint, jsonb,"
        " smallint[], bigint[], bytea[], jsonb, jsonb) returns boolean language plpgsql security definer as $$ begin"
        " insert into taken values ($7 ->> 'note'); return false; end $$; create table taken (note text);"
        "grant execute on function audit.append_blocks to pulse_ops; grant insert on taken to pulse_ops"
    )
    for _ in range(3):
        await log.sealer.seal(log.writer)
        await restart(log)
    assert await log.conn.fetch("select distinct note from taken") == [(pending.signed["note"],)]
    await log.conn.execute(
        "drop function audit.append_blocks; alter function audit._real rename to append_blocks; drop table taken"
    )
    for _ in range(3):
        await log.seal()
    note = await log.conn.fetchval("select note from audit.checkpoints where tree_size = 5")
    assert note == pending.signed["note"]
    assert log.sealer.keys.memory.read().pending is None
    report = await log.verify()
    assert (report.faults, report.unsealed) == ([], 0)


async def test_what_was_committed_and_not_settled_is_settled(log: SealedLog, monkeypatch: pytest.MonkeyPatch) -> None:
    await log.write(3)
    known = log.sealer.keys.memory.read()
    replace = MemoryFile.replace
    calls: list[Memory] = []

    def crash(self: MemoryFile, before: Memory, after: Memory) -> Memory | None:
        calls.append(after)
        if after.pending is None:
            raise MemoryFault("crashed")
        return replace(self, before, after)

    with monkeypatch.context() as patched:
        patched.setattr(MemoryFile, "replace", crash)
        await log.sealer.seal(log.writer)
    assert await signed(log) == 5
    assert log.sealer.keys.memory.read().head == known.head
    await restart(log)
    await log.sealer.seal(log.writer)
    settled = log.sealer.keys.memory.read()
    assert settled.pending is None
    assert settled.checkpoint is not None
    assert settled.checkpoint.tree_size == 5
    assert (await log.verify()).faults == []


async def test_pending_rows_that_changed_are_an_alarm(log: SealedLog, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between signature and commit a superuser changed a row: neither history is appended."""
    await log.write(3)

    async def crash(*_: Any) -> None:
        raise Crash

    with monkeypatch.context() as patched:
        patched.setattr(Appender, "append_intent", crash)
        with pytest.raises(Crash):
            await log.sealer.seal(log.writer)
    await log.conn.execute("set session_replication_role = replica")
    await log.conn.execute("update audit_log set message = 'x' where xid = (select max(xid) from audit_log)")
    await log.conn.execute("set session_replication_role = origin")
    await restart(log)
    await refuses(log, "signed and not committed, are not those that were signed")


async def test_two_processes_that_share_the_file_sign_one_history(log: SealedLog) -> None:
    """Leases expire at once, and both processes are in the middle of a pass."""
    other = make_sealer(log.home, holder="other", rows=2)
    for _ in range(12):
        await log.write(2)
        await log.conn.execute("update audit.sealer set lease_until = '-infinity'")
        await asyncio.gather(log.sealer.seal(log.writer), other.seal(log.writer))
    await log.conn.execute("update audit.sealer set lease_until = '-infinity'")
    for _ in range(3):
        await log.seal()
    report = await log.verify()
    assert (report.faults, report.unsealed) == ([], 0)
    assert log.sealer.keys.memory.read().alarm is None


@pytest.mark.slow
async def test_a_vanished_key_is_never_replaced(log: SealedLog, pulse: Pulse) -> None:
    """Any single trace is enough, even if all others are gone."""
    await log.sealer.release(log.writer)
    beside = {path: path.read_bytes() for path in log.home.glob("signing.key*")}
    await save(log)
    await log.conn.execute("set session_replication_role = replica")

    async def only(*traces: str) -> str:
        for path in beside:
            path.unlink(missing_ok=True)
        if "database" not in traces:
            await log.conn.execute(f"truncate {', '.join(SEALED)}")
        for path, content in beside.items():
            if path.suffix in traces:
                path.write_bytes(content)
        await log.conn.execute(
            "update installation set log_begun_at = $1", None if "mark" not in traces else await now(log)
        )
        settings = OpsSettings(
            database_url="postgresql://unused/unused",
            audit_key_file=log.home / "signing.key",
            audit_anchor_dir=log.checkpoints if "anchors" in traces else log.home / "none",
        )
        sealer = make_sealer_of_settings(settings)
        await sealer.seal(log.writer)
        await sealer.release(log.writer)
        assert not (log.home / "signing.key").exists(), traces
        assert sealer.status.reason in ("no_key", "broken"), traces
        return sealer.status.message

    assert "the log was signed by key" in await only("database")
    for trace, words in (
        (".pub", "has files of an earlier key"),
        (".head", "has files of an earlier key"),
        ("mark", "the database had a sealed log"),
        ("anchors", "there are kept checkpoints"),
    ):
        assert words in await only(trace)
    # A person continues with a new key, and declares the rest lost.
    await only("mark", ".pub", ".head", "anchors")
    await log.conn.execute("set session_replication_role = origin")
    assert "continue with `pulse audit declare-loss`" in (await pulse("rotate-key", "--lost")).stdout
    await restart(log)
    await refuses(log, "had 4 blocks and has 0")
    await pulse("declare-loss", "--reason", "key and tables are gone", "--at", "0")
    await log.seal()
    assert (await log.verify()).faults == []


async def now(log: SealedLog) -> object:
    return await log.conn.fetchval("select now()")


@pytest.mark.parametrize(
    "content", [b"", b"{", b"nothing", b"[]", b'{"format": "pulse.audit.memory.v9"}', b"\xff" * 40]
)
async def test_a_damaged_memory_stops_the_sealer(log: SealedLog, pulse: Pulse, content: bytes) -> None:
    """A damaged memory is not treated as an empty one. A person must continue the log."""
    memory = log.sealer.keys.memory.path
    memory.write_bytes(content)
    await restart(log)
    await log.write(1)
    assert await log.sealer.seal(log.writer) == 0
    assert (log.sealer.status.reason, "is damaged" in log.sealer.status.message) == ("key_fault", True)
    assert memory.read_bytes() == content
    assert await signed(log) == 4
    if content != b"{":  # the commands take a second each
        return
    assert "is damaged" in (await pulse("verify", status=1)).stdout
    await pulse("declare-loss", "--reason", "the file was damaged", "--at", "4")
    await log.seal()
    assert (await log.verify()).faults == []


async def test_a_key_without_memory_adopts_a_log_and_begins_none(log: SealedLog) -> None:
    """This holds for a key moved to another machine and for one of an older Pulse."""
    log.sealer.keys.memory.path.unlink()
    await restart(log)
    await log.write(1)
    assert await log.sealer.seal(log.writer) >= 1
    adopted = log.sealer.keys.memory.read().checkpoint
    assert adopted is not None
    assert adopted.tree_size == 5
    log.sealer.keys.memory.path.unlink()
    await log.conn.execute(f"set session_replication_role = replica; truncate {', '.join(SEALED)}")
    await log.conn.execute("update installation set log_begun_at = null")
    await restart(log)
    await refuses(log, "signing.key.head is gone, and the database has no blocks")


async def test_the_sealer_reads_every_anchor(log: SealedLog, caplog: pytest.LogCaptureFixture) -> None:
    """The largest tree counts, in any anchor. An invalid checkpoint is reported and hides nothing."""
    notes = [row[0] for row in await log.conn.fetch("select note from audit.checkpoints order by tree_size")]
    forget_anchors(log)
    (log.checkpoints / "checkpoints-2026-01-01.log").write_text(f"\n\n{notes[3]}\n\n{notes[0]}")
    (log.checkpoints / "checkpoints-2026-01-02.log").write_text(f"\n\n{notes[1]}\n\n{notes[2][:70]}")
    (log.checkpoints / "checkpoints-2026-01-03.log").write_text("")
    (log.checkpoints / "checkpoints-2026-01-04.log").write_text("rubbish\n")
    forged = notes[3].replace("\n4\n", "\n4711\n", 1)
    (log.checkpoints / "checkpoints-2026-01-05.log").write_text(forged)
    settings = OpsSettings(
        database_url="postgresql://unused/unused",
        audit_key_file=log.sealer.keys.path,
        audit_anchor_dir=log.checkpoints,
    )
    sealer = make_sealer_of_settings(settings)
    assert sealer.history.seen is not None
    assert sealer.history.seen.tree_size == 4
    shown = sealer.status.as_dict()["anchor_faults"]
    for words in (
        "01-03.log is empty",
        "01-04.log holds something that is no",
        "4711 blocks that is not valid",
    ):
        assert words in shown
        assert any(words in record.getMessage() for record in caplog.records)
    # Without the memory, the anchor alone stops a log that is smaller.
    log.sealer.keys.memory.path.unlink()
    await log.conn.execute(
        "delete from audit.blocks where block_no > 2; delete from audit.checkpoints where tree_size > 3"
    )
    await log.conn.execute("delete from audit.tree_nodes where (node_index + 1) << level > 3")
    await log.sealer.release(log.writer)
    with pytest.raises(LogBroken, match="had 4 blocks and has 3"):
        await sealer.seal(log.writer)


def test_a_tree_is_consistent_with_each_that_it_grew_from() -> None:
    """Every pair of sizes is tried with the right root and with a wrong one."""
    leaves = [leaf_hash(bytes([number])) for number in range(40)]
    frontier, nodes = Frontier(), {}
    for number, leaf in enumerate(leaves):
        nodes[0, number] = leaf
        nodes |= {(node.level, node.number): node.hash for node in frontier.append(leaf)}
    for size in range(2, 41):
        tree = Extent(size, root_of(leaves[:size]))
        for earlier in range(1, size):
            asked = {place: nodes[place] for place in needed_nodes(size, earlier)}
            assert is_consistent(tree, Extent(earlier, root_of(leaves[:earlier])), asked)
            assert not is_consistent(tree, Extent(earlier, root_of([*leaves[: earlier - 1], bytes(32)])), asked)
            assert not is_consistent(Extent(size, bytes(32)), Extent(earlier, root_of(leaves[:earlier])), asked)
            for place in asked:
                forged = {**asked, place: bytes(32)}
                assert not is_consistent(tree, Extent(earlier, root_of(leaves[:earlier])), forged)
                del forged[place]
                assert not is_consistent(tree, Extent(earlier, root_of(leaves[:earlier])), forged)


async def test_a_beginning_is_no_garbage(log: SealedLog) -> None:
    """A crash leaves a prefix of a checkpoint, and the next one follows."""
    first, second = [row[0] for row in await log.conn.fetch("select note from audit.checkpoints order by 1 limit 2")]
    origin = [parse_unchecked(first).origin]
    for cut in range(len(first.encode()) + 1):
        for text in (first.encode()[:cut] + b"\n\n" + second.encode(), second.encode() + first.encode()[:cut]):
            assert list(find_garbage(text.decode(errors="replace"), origin)) == []
    for text in ("x", first + "x\n" + second, first.replace("rows", "cows"), "\0" * 512, first[:-9] + "\n\nx"):
        assert list(find_garbage(text, origin)) != [], text


def test_the_memory_reads_what_it_wrote(tmp_path: Path) -> None:
    """It refuses to overwrite another process's record."""
    file = MemoryFile(tmp_path / "signing.key.head")
    assert file.read().is_missing
    kept = file.replace(Memory(), Memory())
    assert kept is not None
    assert file.replace(Memory(), Memory()) is None
    assert file.read() == kept
    assert orjson.loads(file.path.read_bytes())["head"] is None
    assert file.path.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["signing.key.head"]


@pytest.mark.slow
async def test_a_loss_of_everything_but_the_key_is_declared(log: SealedLog, pulse: Pulse) -> None:
    """The sealer stopped before it raised an alarm, so no earlier moment is known."""
    forget_anchors(log)
    log.sealer.keys.memory.path.unlink()
    await log.conn.execute("set session_replication_role = replica")
    await log.conn.execute(f"truncate {', '.join(SEALED)}")
    await log.conn.execute("set session_replication_role = origin")
    refused = await pulse("declare-loss", "--reason", "all is gone", status=1)
    assert "add --at 0" in refused.stderr
    await pulse("declare-loss", "--reason", "all is gone", "--at", "0")
    await restart(log)
    await log.write(1)
    await log.seal()
    assert (await log.verify()).faults == []
