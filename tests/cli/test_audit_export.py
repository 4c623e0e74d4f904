"""An export is verified by a program that knows neither Pulse nor the database and finds every alteration."""

import io
from datetime import UTC, datetime

import orjson
import pytest

from services.cli.audit.evidence import Question
from services.cli.audit.export import write_export
from services.cli.audit.prove import find
from services.cli.errors import CommandFailed
from services.shared.sealed_log.key_file import KeyFile
from tests.support.exported import ALL, check, export
from tests.support.sealed_log import SealedLog


async def test_an_export_holds_every_sealed_event_in_order(log: SealedLog) -> None:
    """It is verified offline, with the key's file or its text."""
    await log.fill()
    lines = [orjson.loads(line) for line in await export(log)]
    events = [line["event"]["event_id"] for line in lines if line["type"] == "event"]
    rows = await log.conn.fetch(
        "select l.event_id::text from audit.blocks b, audit._rows_between(b.previous_snapshot, b.snapshot) l"
        " where audit._segment(l.timestamp) = b.segment"
        ' order by b.block_no, l.xid, l.timestamp, l.tenant_id collate "C", l.event_id'
    )
    assert events == [row[0] for row in rows]
    status, said = await check(log, await export(log))
    assert (status, said.splitlines()[0]) == (
        0,
        f"As sealed: {len(events)} events in {sum(line['type'] == 'block' for line in lines)} blocks.",
    )
    assert (await check(log, await export(log), key=str(log.public_keys[0])))[0] == 0


async def test_only_what_was_asked_for_is_there(log: SealedLog) -> None:
    """Ranges in microseconds and single tenants are exported, and both verify."""
    await log.fill()
    first, last = [
        row[0]
        for row in await log.conn.fetch(
            "select timestamp from audit_log where tenant_id = 'umbrella' and timestamp < '2026-02-01'"
            " order by timestamp offset 1 limit 2"
        )
    ]
    question = Question(first, last, "umbrella")
    lines = await export(log, question)
    events = [value["event"] for value in map(orjson.loads, lines) if value["type"] == "event"]
    expected = await log.conn.fetchval(
        "select count(*) from audit_log where tenant_id = 'umbrella' and timestamp >= $1 and timestamp < $2",
        first,
        last,
    )
    assert len(events) == expected > 0
    assert {event["tenant_id"] for event in events} == {"umbrella"}
    assert (await check(log, lines))[0] == 0
    nothing = await export(log, Question(first, last, "nobody"))
    assert len(nothing) == 2
    assert (await check(log, nothing))[0] == 0


async def test_two_exports_are_the_same(log: SealedLog) -> None:
    """They differ only in the header, which names the newest checkpoint."""
    await log.fill()
    question = Question(ALL.from_time, datetime(2026, 3, 1, tzinfo=UTC))
    one, two = await export(log, question), await export(log, question)
    assert one == two


async def test_the_reader_is_recorded_before_the_first_byte(log: SealedLog) -> None:
    """The read is recorded even if the reader closes the file before the first byte."""
    await log.fill()

    class Closed(io.BytesIO):
        def write(self, _: object) -> int:
            raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        await write_export(log.reader, Question(ALL.from_time, ALL.to_time, "umbrella"), Closed())
    row = await log.conn.fetchrow("select * from audit_log where event_type = 'audit.read'")
    details = orjson.loads(row["details"])
    assert row["actor_id"].startswith("cli:")
    assert (row["tenant_id"], details["role"], details["events"]) == ("umbrella", "pulse_auditor", 10)
    assert details["filter"] == {
        "from": "2000-01-01T00:00:00.000000Z",
        "to": "2100-01-01T00:00:00.000000Z",
        "tenant": "umbrella",
    }


async def test_what_is_not_sealed_is_not_exported(log: SealedLog) -> None:
    """An unsealed event has no proof."""
    await log.write(3)
    with pytest.raises(CommandFailed, match="nothing is sealed yet"):
        await export(log)
    await log.seal()
    await log.write(5)
    lines = await export(log)
    assert sum(b'"type":"event"' in line for line in lines) == 3
    assert (await check(log, lines))[0] == 0


async def test_a_block_larger_than_a_batch_is_streamed(log: SealedLog, monkeypatch: pytest.MonkeyPatch) -> None:
    """Streaming keeps the order and the proofs."""
    await log.write(70)
    await log.fill()
    at_once = await export(log)
    monkeypatch.setattr("services.cli.audit.evidence.BATCH_ROWS", 5)
    in_small_batches = await export(log)
    assert at_once[1:] == in_small_batches[1:]
    assert (await check(log, in_small_batches))[0] == 0


async def test_an_altered_log_is_not_exported(log: SealedLog) -> None:
    """An export of altered rows would fail verification elsewhere, so the file ends without a trailer."""
    await log.fill()
    await log.conn.execute(
        "set session_replication_role = replica; update audit_log set message = 'quiet' where timestamp < '2026-02-01'"
    )
    with pytest.raises(CommandFailed, match=r"^block 0 .* altered; run pulse audit verify"):
        await export(log)
    await log.conn.execute("delete from audit_log where timestamp < '2026-02-01'")
    assert (await check(log, await export(log)))[0] == 0
    await log.conn.execute("update audit.tree_nodes set hash = sha256('x')")
    with pytest.raises(CommandFailed, match="is not in the signed tree"):
        await export(log)


async def test_a_proof_is_an_export_of_one_event(log: SealedLog) -> None:
    """The proof is verified in the same way, for every position in every block."""
    await log.fill()
    rows = await log.conn.fetch("select event_id, tenant_id from audit_log order by random() limit 12")
    assert len(rows) == 12
    for row in rows:
        question = await find(log.reader, row["event_id"], row["tenant_id"])
        lines = await export(log, question)
        assert [orjson.loads(line)["type"] for line in lines] == ["header", "block", "event", "trailer"]
        assert orjson.loads(lines[2])["event"]["event_id"] == str(row["event_id"])
        status, said = await check(log, lines)
        assert status == 0, said


async def test_a_proof_is_refused_in_words(log: SealedLog) -> None:
    """An event that is unknown, not sealed yet or ambiguous is refused with an error message."""
    await log.fill()
    await log.write(1)
    newest = await log.conn.fetchval("select event_id from audit_log order by xid desc limit 1")
    with pytest.raises(CommandFailed, match=f"event {newest} is not sealed yet"):
        await find(log.reader, newest, None)
    oldest = await log.conn.fetchval("select event_id from audit_log where tenant_id = 'acme' order by xid limit 1")
    with pytest.raises(CommandFailed, match=f"there is no event {oldest} of tenant umbrella"):
        await find(log.reader, oldest, "umbrella")
    await log.conn.execute(
        "select audit.write(array[audit.event('umbrella', 'alert.opened', p_event_id => $1,"
        " p_timestamp => l.timestamp)]) from audit_log l where event_id = $1",
        oldest,
    )
    with pytest.raises(CommandFailed, match=f"2 events have the id {oldest} .tenants acme, umbrella.: choose one"):
        await find(log.reader, oldest, None)
    asked = await log.conn.fetch(
        "select tenant_id, details #>> '{filter,event_id}' as event_id from audit_log where event_type = 'audit.read'"
        " order by recorded_at"
    )
    assert [tuple(row) for row in asked] == [
        ("system", str(newest)),
        ("umbrella", str(oldest)),
        ("system", str(oldest)),
    ]
    assert (await find(log.reader, oldest, "acme")).tenant_id == "acme"


async def test_another_key_proves_nothing(log: SealedLog) -> None:
    """Neither a foreign key nor one within the export is accepted."""
    await log.fill()
    stranger = KeyFile(log.home / "stranger.key", "pulse.test/audit")
    stranger.load()
    lines = await export(log)
    status, said = await check(log, lines, key=str(stranger.public_path))
    assert (status, "line 1: none of the keys signed the checkpoint" in said) == (1, True)
    note = stranger.load().sign(orjson.loads(lines[0])["checkpoint"].split("\n\n")[0] + "\n")
    header = {**orjson.loads(lines[0]), "checkpoint": note, "public_keys": [str(stranger.load().verifier)]}
    forged = orjson.dumps(header, option=orjson.OPT_APPEND_NEWLINE)
    assert (await check(log, [forged, *lines[1:]]))[0] == 1


async def test_an_export_is_bound_to_a_checkpoint_that_was_kept(log: SealedLog) -> None:
    """Only checkpoints of the same size can be compared. Without one, the program reports that it cannot decide."""
    await log.fill()
    lines = await export(log)
    [kept] = log.checkpoints.iterdir()
    assert (await check(log, lines, "--checkpoint", str(kept)))[0] == 0
    await log.write(1)
    await log.sealer.seal(log.writer)
    status, said = await check(log, await export(log), "--checkpoint", str(kept))
    assert (status, "was kept" in said) == (2, True)
    other = SealedLog(log.conn, log.writer, log.reader, log.home / "other", log.sealer)
    size, *_ = orjson.loads(lines[0])["checkpoint"].split("\n")[1:]
    other.home.mkdir()
    text = f"pulse.test/audit\n{size}\n{'A' * 43}=\nrows 7\nsigned 2026-01-01T00:00:00.000000Z\n"
    (other.home / "kept").write_text(log.sealer.keys.load().sign(text))
    status, said = await check(log, lines, "--checkpoint", str(other.home / "kept"))
    assert (status, "has another root" in said) == (1, True)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--key", "nonsense"], "is no public key"),
        (["--checkpoint", "/nowhere"], "No such file"),
    ],
)
async def test_what_cannot_be_checked_exits_with_2(log: SealedLog, options: list[str], words: str) -> None:
    await log.fill()
    status, said = await check(log, await export(log), *options)
    assert (status, words in said) == (2, True), said


async def test_a_format_of_the_future_is_not_judged(log: SealedLog) -> None:
    """A newer version may be able to verify it."""
    await log.fill()
    lines = await export(log)
    lines[0] = lines[0].replace(b"export.v1", b"export.v2")
    assert (await check(log, lines))[0] == 2
