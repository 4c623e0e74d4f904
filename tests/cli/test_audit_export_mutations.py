"""Every mutation of an export's lines is found by the verifying program, which names the line."""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import asyncpg
import orjson
import pytest

from services.shared import db
from tests.support.exported import VERIFIER, check, export
from tests.support.sealed_log import SealedLog, make_sealer

HEADER, BLOCK, EVENT, TRAILER = 0, 1, 2, -1
Lines = list[bytes]

OTHER = {
    "timestamp": "2026-01-15T08:00:01.000001+00:00",
    "recorded_at": "2026-01-15T08:00:01.000001+00:00",
    "event_id": "0af76519-16cd-43dd-8448-eb211c80319c",
    "details": {"n": 7},
    "ip_address": "10.0.0.8",
    "duration_ms": 9.5,
    "xid": "7",
    "block_no": 3,
    "segment": "2026-03-01",
    "first_position": 77,
    "row_count": 9,
    "min_timestamp": "2026-01-15T08:00:01.000001Z",
    "max_timestamp": "2026-01-15T08:00:01.000001Z",
    "rows_root": "A" * 43 + "=",
    "sealed_at": "2026-01-15T08:00:01.000001Z",
    "epoch": 5,
    "path": [],
}


@pytest.fixture
async def log(conn: asyncpg.Connection, ops_pool: db.Pool, auditor_pool: db.Pool, tmp_path: Path) -> SealedLog:
    """A sealed log of several blocks."""
    made = SealedLog(conn, ops_pool, auditor_pool, tmp_path, make_sealer(tmp_path))
    await made.fill()
    return made


def edited(line: bytes, *path: str, value: Any) -> bytes:
    """Return a line of JSON with another value at a place, or what a function makes of the value."""
    document = orjson.loads(line)
    inner = document
    for step in path[:-1]:
        inner = inner[step]
    inner[path[-1]] = value(inner[path[-1]]) if callable(value) else value
    return orjson.dumps(document, option=orjson.OPT_APPEND_NEWLINE)


def edit(at: int, *path: str, value: Any) -> Callable[[Lines], Lines]:
    """Return the line at this number with another value."""

    def change(lines: Lines) -> Lines:
        changed = list(lines)
        changed[at] = edited(lines[at], *path, value=value)
        return changed

    return change


def replace(at: int, old: bytes, new: bytes) -> Callable[[Lines], Lines]:
    """Return the line at this number with other bytes."""

    def change(lines: Lines) -> Lines:
        assert old in lines[at]
        changed = list(lines)
        changed[at] = lines[at].replace(old, new)
        return changed

    return change


def swap(one: int, two: int) -> Callable[[Lines], Lines]:
    """Return two lines in each other's place."""

    def change(lines: Lines) -> Lines:
        changed = list(lines)
        changed[one], changed[two] = lines[two], lines[one]
        return changed

    return change


def swap_paths(one: int, two: int) -> Callable[[Lines], Lines]:
    """Return two lines with each other's proof."""

    def change(lines: Lines) -> Lines:
        paths = [orjson.loads(lines[at])["path"] for at in (one, two)]
        assert paths[0] != paths[1]
        return edit(one, "path", value=paths[1])(edit(two, "path", value=paths[0])(lines))

    return change


def second_block(lines: Lines) -> int:
    """Number of the line of the second block."""
    return next(at for at, line in enumerate(lines) if at > BLOCK and b'"type":"block"' in line)


def move_blocks(lines: Lines) -> Lines:
    """Return the first block behind all others."""
    second = second_block(lines)
    return [lines[0], *lines[second:-1], *lines[1:second], lines[-1]]


def move_event(lines: Lines) -> Lines:
    """Return the first event among those of the second block."""
    second = second_block(lines)
    return [*lines[:2], *lines[3 : second + 1], lines[2], *lines[second + 1 :]]


EVENT_MEMBERS = (
    "tenant_id", "timestamp", "event_id", "recorded_at", "event_type", "category", "severity", "entity_type",
    "entity_id", "entity_name", "action", "message", "details", "source_service", "actor_type", "actor_id",
    "actor_name", "ip_address", "trace_id", "duration_ms", "xid",
)  # fmt: skip
BLOCK_MEMBERS = (
    "block_no", "segment", "previous_snapshot", "snapshot", "first_position", "row_count", "min_timestamp",
    "max_timestamp", "rows_root", "sealed_at", "epoch", "path",
)  # fmt: skip
MUTATIONS: dict[str, Callable[[Lines], Lines]] = {
    **{f"event.{name}": edit(EVENT, "event", name, value=OTHER.get(name, "x")) for name in EVENT_MEMBERS},
    **{f"event.{name} missing": edit(EVENT, "event", name, value=None) for name in EVENT_MEMBERS},
    **{f"block.{name}": edit(BLOCK, name, value=OTHER.get(name, "x")) for name in BLOCK_MEMBERS},
    "a column less": edit(EVENT, "event", value=lambda event: {key: event[key] for key in event if key != "xid"}),
    "a column more": edit(EVENT, "event", value=lambda event: {**event, "note": "x"}),
    "a key twice": replace(EVENT, b'"event":{', b'"event":{"message":"nothing",'),
    "a number retyped": replace(EVENT, b'"n": 2.0', b'"n": 2.00'),
    "an event removed": lambda lines: [*lines[:2], *lines[3:]],
    "an event doubled": lambda lines: [*lines[:3], *lines[2:]],
    "events reordered": swap(2, 3),
    "an event in another block": move_event,
    "a block removed": lambda lines: [lines[0], *lines[second_block(lines) :]],
    "blocks reordered": move_blocks,
    "cut between lines": lambda lines: lines[:-1],
    "cut in a line": lambda lines: [*lines[:-2], lines[-2][:40]],
    "cut behind the header": lambda lines: lines[:1],
    "nothing left": lambda _: [],
    "something behind the trailer": lambda lines: [*lines, lines[2]],
    "two headers": lambda lines: [lines[0], *lines],
    "proofs swapped": swap_paths(2, 3),
    "proofs of blocks swapped": lambda lines: swap_paths(BLOCK, second_block(lines))(lines),
    "another place": edit(EVENT, "index", value=1),
    "another root": edit(HEADER, "checkpoint", value=lambda note: note.replace(note.split("\n")[2], "A" * 43 + "=")),
    "another size": edit(HEADER, "checkpoint", value=lambda note: note.replace("\n", "\n1", 1)),
    "no signature": edit(HEADER, "checkpoint", value=lambda note: note.split("\n\n")[0] + "\n\n"),
    "no checkpoint": edit(HEADER, "checkpoint", value=None),
    "fewer events promised": edit(HEADER, "events", value=1),
    "another tenant asked for": edit(HEADER, "filter", value=lambda asked: {**asked, "tenant": "umbrella"}),
    "less time asked for": edit(HEADER, "filter", "from", value="2026-02-01T00:00:00Z"),
    "fewer in the trailer": edit(TRAILER, "events", value=1),
    "another digest": edit(TRAILER, "sha256", value="0" * 64),
    "an unknown line": lambda lines: [*lines[:2], b'{"type":"comment"}\n', *lines[2:]],
    "no JSON": lambda lines: [*lines[:2], b"nonsense\n", *lines[2:]],
    "not a number": replace(EVENT, b'"n": 2.0', b'"n": NaN'),
}
# Most mutations are reported at the changed line, a missing line at the first line that reveals the gap.
LATER: dict[str, Callable[[Lines], int]] = {
    "an event removed": lambda lines: second_block(lines) - 1,
    "an event doubled": lambda _: 3,
    "events reordered": lambda _: 3,
    "an event in another block": lambda lines: second_block(lines) - 1,
    "a block removed": lambda lines: len(lines) - second_block(lines),
    "blocks reordered": lambda lines: len(lines) - second_block(lines),
    "cut between lines": lambda lines: len(lines) - 2,
    "cut in a line": lambda lines: len(lines) - 2,
    "nothing left": lambda _: -1,
    "something behind the trailer": len,
    "two headers": lambda _: 1,
    "fewer events promised": lambda lines: len(lines) - 1,
    "another tenant asked for": lambda _: EVENT,
    "less time asked for": lambda _: EVENT,
    "fewer in the trailer": lambda lines: len(lines) - 1,
    "another digest": lambda lines: len(lines) - 1,
}


async def test_whatever_is_done_to_an_export_is_found(log: SealedLog) -> None:
    """Mutations: edited members, removed, doubled and moved lines, truncated files, swapped proofs."""
    lines = await export(log)
    assert b'"type":"block"' in lines[BLOCK]
    assert b'"type":"event"' in lines[EVENT]
    assert first_fault(log, lines) is None
    for name, mutate in MUTATIONS.items():
        changed = mutate(lines)
        assert changed != lines, name
        touched = next((at for at, line in enumerate(changed) if line != lines[min(at, len(lines) - 1)]), 0)
        expected = LATER[name](lines) if name in LATER else touched
        assert (name, first_fault(log, changed)) == (name, expected + 1)


async def test_the_program_says_so_in_one_line(log: SealedLog) -> None:
    status, said = await check(log, MUTATIONS["event.message"](await export(log)))
    assert status == 1
    [line] = said.splitlines()
    assert line.startswith("NOT AS SEALED, line 3: event ")


async def test_an_event_removed_with_all_counts_corrected_is_found(log: SealedLog) -> None:
    """A block that was exported whole must stay complete."""
    lines = await export(log)
    less = [*lines[:2], *lines[3:]]
    digest = hashlib.sha256(b"".join(less[1:-1])).hexdigest()
    count = len([line for line in less if b'"type":"event"' in line])
    less[-1] = edited(edited(less[-1], "events", value=count), "sha256", value=digest)
    less[0] = edited(less[0], "events", value=count)
    status, said = await check(log, less)
    assert status == 1
    assert "block 0 has 8 events and 7 are there" in said


def first_fault(log: SealedLog, lines: Sequence[bytes]) -> int | None:
    """Number of the line of the first fault, without a process of its own."""
    taken = VERIFIER.Export(VERIFIER.read_keys([str(log.sealer.keys.public_path)]), None)
    line_no = 0
    try:
        for line in lines:
            line_no += 1
            taken.take(line.decode())
        taken.close()
    except VERIFIER.Fault:
        return line_no
    return None
