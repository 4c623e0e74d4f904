"""Names from tokens, devices and psql are harmless in alerts, messages, log lines and on the terminal."""

import asyncio
import io
import logging
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg
import orjson
import pytest

from services.delivery_worker.channels import pagerduty, slack, teams, webhook
from services.delivery_worker.notification import Notification
from services.local.demo.first_journey import Hop, journey_table
from services.local.process import log_files
from services.local.process.log_files import last_message
from services.local.stack.screen import describe, table
from services.local.stack.supervise import Child, Spec
from services.shared import logging as line_logging
from services.shared.visible_text import escape_json, printable, terminal_text
from tests.support import seed
from tests.support.channel_bodies import PAGERDUTY, SLACK, TEAMS, WEBHOOK
from tests.support.migrator import ROOT
from tests.support.notifications import payload
from tests.support.sealer import Seal

HOSTILE = {
    "colors": "\x1b[31mred\x1b[0m",
    "title": "\x1b]0;owned\x07",
    "c1": "\x9b2J\x90q\x9c\x9d0;owned\x9c",
    "line breaks": "a\r\nb\nc\u2028d\u2029e\x0bf\x0cg\x85h",
    "bidi": "\u202e\u2066abc\u2069\u202c\u200f\u061c",
    "hidden": "\u200b\ufeff\u2060\u00ad\U000e0041\U000e007f",
    "controls": "\x01\x08\x08\x7f\x1c",
    "markup": "[red][link=https://evil.example]x[/link][/nothing]",
}
EVERYTHING = "".join(HOSTILE.values())
HARMLESS = (
    *("Boiler 1", "Kessel f\u00fcr \u00d6lheizung \u2116 1", "\u30dc\u30a4\u30e9\u30fc", ""),
    *("\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645", "\U0001f469\u200d\U0001f527 ok"),
)


def is_harmless(text: str) -> bool:
    """Return whether no character could steer a terminal, break a line or turn or hide text; joiners may stay."""
    return all(letter.isprintable() or letter in "\u200c\u200d" for letter in text)


def texts(value: Any) -> Iterator[str]:
    """Yield every text in a JSON value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, member in value.items():
            yield from (key, *texts(member))
    elif isinstance(value, list | tuple):
        for member in value:
            yield from texts(member)


@pytest.mark.parametrize("name", HOSTILE)
def test_nothing_steers_a_terminal_a_message_or_a_log(name: str) -> None:
    text = HOSTILE[name]
    assert is_harmless(printable(text))
    assert terminal_text(text).isprintable()
    for indent in (0, orjson.OPT_INDENT_2):
        document = orjson.dumps({text: [text], "n": 1}, option=indent)
        escaped = escape_json(document)
        assert orjson.loads(escaped) == {text: [text], "n": 1}
        assert escaped.decode().replace("\n", "").isprintable()
        assert indent or b"\n" not in escaped


async def test_harmless_names_stay_as_they_are(conn: asyncpg.Connection) -> None:
    for text in HARMLESS:
        assert printable(text) == text
        assert orjson.loads(escape_json(orjson.dumps([text]))) == [text]
        assert await conn.fetchval("select core.visible_text($1)", text) == text


async def test_sql_finds_what_python_finds(conn: asyncpg.Connection) -> None:
    """For every character that is no letter, number, mark or symbol."""
    points = [*range(1, 0xD800), *range(0xE000, 0x10000), *range(0xE0000, 0xE0200)]
    suspects = [chr(point) for point in points if not chr(point).isprintable() and printable(f"x{chr(point)}x") != "xx"]
    removed = [letter for letter in map(chr, points) if printable(f"x{letter}x") in ("xx", "x x") and letter != " "]
    assert len(removed) > 150
    found = dict(
        await conn.fetch("select t, core.visible_text(t) from unnest($1::text[]) t", [*removed, *suspects, "a"])
    )
    for letter in removed:
        # Format characters of single scripts do not reverse or hide text.
        assert found[letter] == "\ufffd" or 0x600 <= ord(letter) <= 0x13FFF, hex(ord(letter))
    assert found["a"] == "a"


def test_a_log_line_is_harmless_and_means_the_same() -> None:
    out = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True)
    handler = line_logging.LineHandler(out, line_logging.JsonFormatter("ui_iot"))
    record = logging.LogRecord("x", logging.INFO, "", 0, "%s", (EVERYTHING,), None)
    record.device_name = EVERYTHING
    handler.emit(record)
    handler.write(logging.INFO, "x", EVERYTHING, {"path": EVERYTHING})
    handler.write(logging.INFO, "x", EVERYTHING * 1000, {})
    assert isinstance(out.buffer, io.BytesIO)
    lines = out.buffer.getvalue().decode().split("\n")
    assert len(lines) == 4
    for line in lines[:3]:
        assert line.isprintable()
        assert orjson.loads(line)["message"].startswith(EVERYTHING)
    assert orjson.loads(lines[0])["device_name"] == orjson.loads(lines[1])["path"] == EVERYTHING


async def test_hostile_names_reach_no_alert_and_no_message(conn: asyncpg.Connection) -> None:
    """Written past the API, as in an old row or by psql; then acknowledged, renamed and closed."""
    await seed.device(conn)
    await conn.execute("update devices set name = $1", EVERYTHING)
    metric = EVERYTHING[:100]
    await seed.rule(conn, name=EVERYTHING[:190], metric=metric)
    await seed.route(conn, await seed.channel(conn))
    await conn.execute("set pulse.tenant_id = 'acme'")
    await seed.readings(conn, (0, 95), metric=metric)
    await conn.execute("select evaluator.evaluate(100)")
    acts = (
        "select evaluator.acknowledge_alert(alert_id) from alerts",
        "select evaluator.update_rule(rule_id, jsonb_build_object('name', name || 'x', 'threshold', 9)) from api.rules",
        "select evaluator.close_alert(alert_id, $1) from alerts",
    )
    for act in acts:
        async with conn.transaction():
            await conn.execute("select audit.act($1, $1)", EVERYTHING[:200])
            await conn.execute("select set_config('pulse.actor_name', $1, true)", EVERYTHING[:200])
            await conn.execute(act, *([EVERYTHING] if "$1" in act else []))
    await conn.execute("select dispatcher.dispatch(100)")
    for name in ("alerts", "alert_events", "notification_jobs"):
        rows = [orjson.loads(row[0]) for row in await conn.fetch(f"select to_jsonb(t)::text from public.{name} t")]
        assert rows, name
        unclean = [text for text in texts(rows) if not is_harmless(text)]
        assert unclean == [], name
    kinds = [row[0] for row in await conn.fetch("select kind from alert_events order by event_id")]
    assert kinds == ["opened", "acknowledged", "updated", "closed"]
    assert "red" in await conn.fetchval("select acknowledged_by from alerts")


def test_hostile_payloads_become_harmless_messages() -> None:
    """This includes jobs made before names were cleaned."""
    alert = {
        **payload("closed")["alert"],
        **dict.fromkeys(("rule_name", "device_id", "device_name", "metric", "message"), EVERYTHING),
        **dict.fromkeys(("close_reason", "acknowledged_by"), EVERYTHING),
    }
    fields = {"kind": "closed", "tenant_id": "acme", "event_id": 1, "occurred_at": "2026-01-05T12:00Z", "alert": alert}
    for kind in ("opened", "closed"):
        notification = Notification.model_validate({**fields, "kind": kind})
        for parts in (
            slack.render(notification, SLACK),
            teams.render(notification, TEAMS),
            pagerduty.render(notification, PAGERDUTY),
            webhook.render(notification, WEBHOOK, idempotency_key="k", sent_at=datetime(2026, 1, 5, tzinfo=UTC)),
        ):
            # Slack's blocks contain their own line breaks.
            found = [text.replace("\n", "") for text in texts(orjson.loads(parts.body))]
            assert len(found) > 5
            assert [text for text in found if not is_harmless(text)] == []


async def _pulse(arguments: list[str], environment: Mapping[str, str]) -> tuple[str, int]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("PULSE_", "PG"))}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "services.cli", *arguments),
        cwd="/",
        env={**inherited, "PYTHONPATH": str(ROOT), **environment},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    out, _ = await process.communicate()
    return out.decode(), process.returncode or 0


@pytest.mark.slow
async def test_no_command_prints_what_steers_the_terminal(
    conn: asyncpg.Connection, role_url: Callable[[str], str], seal: Seal, tmp_path: Path
) -> None:
    trace_id = "0af7651916cd43dd8448eb211c80319c"
    hostile = EVERYTHING.replace("\0", "")
    await seed.tenant(conn)
    await conn.execute("update tenants set name = $1", hostile)
    await conn.execute(
        "insert into audit_log (tenant_id, timestamp, event_id, event_type, category, action, message, source_service,"
        " entity_type, entity_id, entity_name, actor_type, actor_id, trace_id) values ('acme', now(),"
        " gen_random_uuid(), 'alert.opened', 'alert', 'opened', $1, $1, $1, $1, $1, 'user', $1, $2)",
        hostile,
        trace_id,
    )
    await conn.execute(
        "insert into audit.legal_holds (starts_at, ends_at, reason, placed_by)"
        " values ('-infinity', 'infinity', $1, $1)",
        hostile,
    )
    await conn.execute("set role pulse_owner")
    await conn.execute("create view metrics.odd as select 1 as value")
    comment = hostile.replace("'", "")
    await conn.execute(f"comment on view metrics.odd is E'{comment}'")
    await conn.execute("reset role")
    await seal()
    environment = {
        "PULSE_DATABASE_URL": role_url("pulse_app"),
        "PULSE_AUDIT_DATABASE_URL": role_url("pulse_auditor"),
        "PULSE_EXPORTER_DATABASE_URL": role_url("pulse_exporter"),
        "PULSE_HOME": str(tmp_path / "home"),
    }
    for arguments, expected in (
        (["trace", trace_id, "--tenant", "acme"], "red"),
        (["trace", trace_id, "--tenant", "acme", "--json"], "red"),
        (["trace", "\x1b[31m\x9b2J"], "is no trace id"),
        (["tenant", "list"], "red"),
        (["audit", "tail", "--from-beginning", "--no-follow"], "red"),
        (["audit", "tail", "--from-beginning", "--no-follow", "--json"], "red"),
        (["audit", "holds"], "red"),
        (["metrics", "list"], "red"),
        (["audit", "verify", "--since", "\x1b[31m\x9b2J"], "not verified"),
    ):
        out, _ = await _pulse(arguments, environment)
        assert expected in out, (arguments, out)
        assert all(line.isprintable() for line in out.split("\n")), (arguments, out)


def test_the_stacks_screen_shows_a_hostile_log_as_text(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    for line in (orjson.dumps({"message": EVERYTHING}), EVERYTHING.encode()):
        log.write_bytes(line + b"\n")
        assert last_message(log).isprintable()

    async def command() -> Any:
        raise AssertionError

    async def is_ready(_pid: int) -> bool:
        return True

    child = Child(Spec("x", None, log, command, is_ready), fault=EVERYTHING)
    assert describe(child).isprintable()
    cells = [str(cell) for column in table([child]).columns for cell in column.cells]
    cells += [
        str(cell) for column in journey_table([Hop("a", EVERYTHING, EVERYTHING, 1)]).columns for cell in column.cells
    ]
    assert len(cells) > 5
    assert [cell for cell in cells if not cell.isprintable()] == []


def test_log_files_are_for_owner_and_group(tmp_path: Path) -> None:
    """For any umask, for a file of an older Pulse, and for the copies that trimming makes."""
    before = os.umask(0)
    try:
        for mode in (None, 0o666, 0o600):
            log = tmp_path / "log" / f"{mode}.log"
            if mode is not None:
                log.touch()
                log.chmod(mode)
            with log_files.open_log(log) as file:
                file.write(b"x" * 100)
            log_files.trim(log, largest_bytes=50)
            old = log.with_name(f"{log.name}.1")
            assert (old.read_bytes(), log.read_bytes()) == (b"x" * 100, b"")
            assert [path.stat().st_mode & 0o777 for path in (log, old)] == [0o640, 0o640]
    finally:
        os.umask(before)
