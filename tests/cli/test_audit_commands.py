"""`pulse audit verify, prove, export, keys, rotate-key` as an auditor runs them."""

import asyncio
import io
import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import asyncpg
import orjson
import pytest

from services.cli.audit.evidence import Question
from services.cli.audit.export import write_export
from services.cli.database import operator
from services.shared import db
from services.shared.sealed_log.key_file import KeyFile
from tests.support.audit_program import Pulse
from tests.support.exported import check
from tests.support.sealed_log import SealedLog, make_sealer


@pytest.fixture
async def log(conn: asyncpg.Connection, ops_pool: db.Pool, auditor_pool: db.Pool, tmp_path: Path) -> SealedLog:
    """A sealed log with key and checkpoints in the local stack's directories."""
    made = SealedLog(conn, ops_pool, auditor_pool, tmp_path / "audit", make_sealer(tmp_path / "audit"))
    await made.fill()
    return made


@pytest.fixture
def pulse(tmp_path: Path, role_url: Callable[[str], str]) -> Pulse:
    return Pulse(tmp_path, role_url("pulse_auditor"))


async def test_verify_says_that_all_is_well(log: SealedLog, pulse: Pulse) -> None:
    """The output has two lines at most, or is JSON."""
    rows = await log.conn.fetchval("select count(*) from audit_log")
    done = await pulse("verify", status=3)
    assert done.stdout.startswith(
        f"All is as it was sealed: {rows} rows in 10 blocks, {rows} of them hashed again, in "
    )
    await log.write(2)
    found = orjson.loads((await pulse("verify", "--json", status=3)).stdout)
    assert (found["ok"], found["rows"], found["rows_unsealed"], found["sealing_is_late"]) == (True, rows, 2, False)
    await log.conn.execute(
        "set session_replication_role = replica; update audit_log set recorded_at = recorded_at - interval '5 minutes'"
        " where xid = (select max(xid) from audit_log)"
    )
    assert "WARNING, no sealer seems to run: 2 rows not sealed yet" in (await pulse("verify", status=3)).stdout


async def test_verify_exits_with_1_and_names_what_is_wrong(log: SealedLog, pulse: Pulse) -> None:
    """The output has one sentence per fault, the earliest first."""
    await log.conn.execute(
        "set session_replication_role = replica; delete from audit_log where timestamp < '2026-02-01'"
    )
    [first, *_] = (await pulse("verify", status=1)).stdout.splitlines()
    assert first.startswith("BROKEN: block 0 (events from 2026-01-15 ")
    found = orjson.loads((await pulse("verify", "--json", status=1)).stdout)
    assert (found["ok"], found["faults"][0]["block"]) == (False, 0)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--checkpoint", "/nowhere"], "there is no file /nowhere"),
        (["--keys", "/nowhere"], "there is no public key to verify with: /nowhere: No such file"),
        (["--since", "yesterday"], "yesterday is no time"),
    ],
)
async def test_verify_exits_with_2_when_it_cannot_tell(
    log: SealedLog, pulse: Pulse, arguments: list[str], words: str
) -> None:
    """A wrong argument, or nothing to compare the log with."""
    done = await pulse("verify", *arguments, status=2)
    assert done.stderr.startswith(f"pulse: not verified: {words}")
    assert done.stdout == ""


async def test_verify_without_kept_checkpoints_cannot_tell(log: SealedLog, pulse: Pulse) -> None:
    """The database cannot prove itself, and one that does not answer proves nothing."""
    for file in log.checkpoints.iterdir():
        file.unlink()
    assert "holds no checkpoint" in (await pulse("verify", status=2)).stderr
    nowhere = "postgresql://pulse_auditor@127.0.0.1:1/pulse"
    assert "does not answer" in (await pulse("verify", status=2, PULSE_AUDIT_DATABASE_URL=nowhere)).stderr


async def test_a_database_that_fails_is_no_altered_log(log: SealedLog, pulse: Pulse) -> None:
    """Failures during hashing are reported in the same way."""
    await log.conn.execute("alter function audit.read_leaves(text, text, date, date) rename to read_nothing")
    shown = (await pulse("verify", status=1)).stdout
    assert "BROKEN: the rows were not verified: the database is older than this checkout" in shown
    assert "the SQL layer is not as it was applied: missing routine audit.read_leaves(" in shown
    await log.conn.execute(
        "create function audit.read_leaves(text, text) returns table (xid bigint, segment date, leaves bytea)"
        " language plpgsql as $$ begin xid := 1 / 0; end $$;"
        "grant execute on function audit.read_leaves to pulse_auditor"
    )
    shown = (await pulse("verify", status=1)).stdout
    assert "the rows were not verified: the database refuses: division by zero" in shown
    assert "added routine audit.read_leaves(text, text)" in shown


def test_a_user_without_a_name_is_named_by_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """A container's user may have no passwd entry."""
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 424242)
    assert operator() == "cli:uid 424242"


@pytest.mark.parametrize("command", ["", "verify", "prove", "export", "keys", "rotate-key", "declare-loss"])
async def test_every_command_has_help(pulse: Pulse, command: str) -> None:
    """This includes the group of commands."""
    assert (await pulse(*command.split(), "--help")).stdout.startswith(f"Usage: pulse audit {command}".rstrip())


async def test_verify_takes_checkpoints_and_keys_from_elsewhere(log: SealedLog, pulse: Pulse, tmp_path: Path) -> None:
    """An auditor may keep copies of checkpoints and keys."""
    [kept] = log.checkpoints.iterdir()
    away = tmp_path / "away"
    away.mkdir()
    kept.rename(away / "kept")
    log.sealer.keys.public_path.rename(away / "keys")
    done = await pulse("verify", "--checkpoint", str(away / "kept"), "--keys", str(away / "keys"), "--since", "1h")
    assert done.stdout.startswith("All is as it was sealed")


@pytest.mark.slow
async def test_what_only_this_machine_says_is_trusted_only_so_far(log: SealedLog, pulse: Pulse, tmp_path: Path) -> None:
    """An attacker who replaced the log may have replaced the key and the checkpoints next to it."""
    public, kept = log.sealer.keys.public_path, next(log.checkpoints.iterdir())
    for local in ((), ("--keys", str(public)), ("--checkpoint", str(kept)), ("--checkpoint", str(log.checkpoints))):
        shown = (await pulse("verify", *local, status=3)).stdout
        assert "Consistent, but only with this machine" in shown, local
    assert orjson.loads((await pulse("verify", "--json", status=3)).stdout)["trusted_from_outside"] is False
    away = tmp_path / "away.pub"
    away.write_bytes(public.read_bytes())
    for option in ("--key", "--keys"):
        assert "only as far as" not in (await pulse("verify", option, str(away))).stdout
    away.write_bytes(kept.read_bytes())
    await pulse("verify", "--checkpoint", str(away))
    (log.checkpoints / "checkpoints-2020-01-01.log").write_text("")
    assert "checkpoints-2020-01-01.log is empty." in (await pulse("verify", status=3)).stdout
    (log.checkpoints / "checkpoints-2020-01-01.log").write_text("rubbish\n")
    assert "2020-01-01.log holds no checkpoint" in (await pulse("verify", status=1)).stdout
    with kept.open("a") as file:
        file.write("\n\nrubbish\n\n")
    (log.checkpoints / "checkpoints-2020-01-01.log").unlink()
    assert "holds something that is no checkpoint: 'rubbish'" in (await pulse("verify", status=1)).stdout


@pytest.mark.slow
async def test_a_proof_goes_through_a_pipe(log: SealedLog, pulse: Pulse) -> None:
    """The output of `prove` is piped to the verifying program."""
    event_id = await log.conn.fetchval("select event_id::text from audit_log where tenant_id = 'acme' limit 1")
    proof = await pulse("prove", event_id)
    status, said = await check(log, [proof.stdout.encode()])
    assert (status, said.splitlines()[0]) == (0, "As sealed: 1 events in 1 blocks.")
    other = "00000000-0000-7000-8000-000000000000"
    assert f"there is no event {other}" in (await pulse("prove", other, status=1)).stderr
    query = "select (details ->> 'events')::int from audit_log where event_type = 'audit.read' order by recorded_at"
    assert [row[0] for row in await log.conn.fetch(query)] == [1, 0]


@pytest.mark.slow
async def test_an_export_is_a_file_for_its_owner(log: SealedLog, pulse: Pulse, tmp_path: Path) -> None:
    """The file gets its name when it is complete."""
    out = tmp_path / "export.jsonl"
    options = ("export", "--from", "2020-01-01", "--out", str(out))
    await pulse(*options, "--tenant", "umbrella")
    assert out.stat().st_mode & 0o777 == 0o600
    assert orjson.loads(out.read_bytes().splitlines()[-1])["events"] == 10
    [kept] = log.checkpoints.iterdir()
    await log.write(1)
    await log.sealer.seal(log.writer)
    await pulse(*options, "--checkpoint", str(kept))
    assert orjson.loads(out.read_bytes().splitlines()[0])["checkpoint"] in kept.read_text()
    out.unlink()
    await log.conn.execute("set session_replication_role = replica; update audit_log set message = ''")
    assert "run pulse audit verify" in (await pulse(*options, status=1)).stderr
    assert not {"export.jsonl", ".export.jsonl.part"} & set(await asyncio.to_thread(os.listdir, tmp_path))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--from", "2026-02-01", "--to", "2026-01-01"], "--from must be earlier than --to"),
        (["--from", "last week"], "last week is no time"),
    ],
)
async def test_a_wrong_question_is_answered_in_one_line(pulse: Pulse, arguments: list[str], words: str) -> None:
    """The arguments are checked before any row is read."""
    done = await pulse("export", *arguments, status=1)
    assert done.stderr == f"pulse: {words}" + done.stderr.removeprefix(f"pulse: {words}")
    assert done.stdout == ""


@pytest.mark.slow
async def test_a_new_key_leaves_old_rows_verifiable(log: SealedLog, pulse: Pulse) -> None:
    """The running sealer uses it at its next pass. Both public keys are printed."""
    [old] = (await pulse("keys")).stdout.splitlines()
    before = log.sealer.keys.public_path.read_bytes()
    refused = await pulse("rotate-key", status=1, PULSE_AUDIT_LOG_NAME="another.name")
    assert "PULSE_AUDIT_LOG_NAME is another.name, and the key in" in refused.stderr
    done = await pulse("rotate-key")
    keys = (await pulse("keys")).stdout.splitlines()
    assert (keys[0], len(keys)) == (old, 2)
    assert keys[1] in done.stdout
    await log.write(3)
    await log.seal()
    newest = await log.conn.fetchval("select key_id from audit.checkpoints order by tree_size desc limit 1")
    assert f"pulse.test/audit+{newest}+" in keys[1]
    assert (await pulse("verify", status=3)).stdout.startswith("All is as it was sealed")
    # Without the new public key, verification fails.
    log.sealer.keys.public_path.write_bytes(before)
    assert "no known key signed" in (await pulse("verify", status=1)).stdout


async def test_there_is_no_key_to_rotate_before_the_first(pulse: Pulse, tmp_path: Path) -> None:
    """The sealer creates the first key."""
    assert "there is no key in" in (await pulse("rotate-key", status=1)).stderr
    KeyFile(tmp_path / "audit" / "signing.key", "pulse.test/audit").load()
    await pulse("rotate-key")


async def test_another_format_is_what_its_mapper_makes(log: SealedLog) -> None:
    """One event a line, in sealed order, without proofs. The read is recorded before the first byte."""
    question = Question(datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 3, 1, tzinfo=UTC))
    file = io.BytesIO()
    await write_export(
        log.reader, question, file, render=lambda event: {"uid": event["event_id"], "n": event["details"]}
    )
    lines = [orjson.loads(line) for line in file.getvalue().splitlines()]
    expected = await log.conn.fetchval("select count(*) from audit_log where timestamp < '2026-03-01'")
    assert len(lines) == expected == len({line["uid"] for line in lines})
    assert await log.conn.fetchval("select count(*) from audit_log where event_type = 'audit.read'") == 1
