"""Comparison of an older export with the database, which finds rows that were altered, removed or added since.

export, proven by docs/verify_export.py ─▶ the same rows in the database, block by block ─▶ differences
"""

import importlib.util
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any
from uuid import UUID

from services.cli.audit.asking import record_read
from services.cli.errors import CommandFailed
from services.shared import db
from services.shared.sealed_log.block import Broken
from services.shared.sealed_log.database import LONG_SECONDS, read_tombstones
from services.shared.sealed_log.entry import Entry
from services.shared.sealed_log.note import VerifierKey
from services.shared.sealed_log.tombstone import Tombstone

PROGRAM = Path(__file__).parents[3] / "docs" / "verify_export.py"


@dataclass(slots=True)
class ExportedBlock:
    """Block of an export, with its exported events by tenant and id."""

    line: Mapping[str, Any]
    events: dict[tuple[str, str], Mapping[str, Any]] = field(default_factory=dict)

    @property
    def number(self) -> int:
        """Number of the block in the log."""
        return int(self.line["block_no"])


@dataclass(frozen=True, slots=True)
class Export:
    """Export that was proven. asked: the filter it was made with."""

    name: str
    asked: Mapping[str, str]
    blocks: list[ExportedBlock]

    @property
    def events(self) -> int:
        """Number of events in it."""
        return sum(len(block.events) for block in self.blocks)


@cache
def _program() -> ModuleType:
    """Load the program that auditors have, so that there is one reader of exports."""
    spec = importlib.util.spec_from_file_location("verify_export", PROGRAM)
    if spec is None or spec.loader is None or not PROGRAM.exists():
        raise CommandFailed(f"{PROGRAM} is missing: --against proves the export with it")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def read_export(file: Path, keys: Iterable[VerifierKey]) -> Export:
    """Prove an export with the public keys and return it. Raises CommandFailed."""
    program = _program()
    checked = program.Export(program.read_keys([str(key) for key in keys]), None)
    blocks: list[ExportedBlock] = []
    try:
        for line in program.read_lines(str(file)):
            checked.take(line)
            value = program.parse(line)
            if value["type"] == "block":
                blocks.append(ExportedBlock(value))
            elif value["type"] == "event":
                event = value["event"]
                blocks[-1].events[event["tenant_id"], event["event_id"]] = event
        checked.close()
    except (program.Fault, program.CannotTell) as fault:
        raise CommandFailed(f"{file} proves nothing: {fault}") from None
    return Export(file.name, checked.header["filter"], blocks)


async def compare_export(
    pool: db.Pool, export: Export, keys: list[VerifierKey], entries: Iterable[Entry]
) -> AsyncIterator[Broken]:
    """Record the read, then yield each exported row that differs in the database."""
    await record_read(pool, {"against": export.name, **export.asked}, export.events, export.asked.get("tenant"))
    lost = [entry for entry in entries if entry.lost is not None]
    stones: list[Tombstone] | None = None
    for block in export.blocks:
        header = await pool.fetchrow("select leaf_hash from audit.block_headers where block_no = $1", block.number)
        if header is None or header["leaf_hash"] != _program().block_hash(block.line):
            if not any(entry.size <= block.number < entry.lost.tree_size for entry in lost if entry.lost):
                yield Broken(f"block {block.number} of {export.name} is not in this log", block_no=block.number)
            continue
        now = await _read_events(pool, export.asked, block)
        if not now:
            stones = await read_tombstones(pool, keys) if stones is None else stones
            if any(_covers(stone, block) for stone in stones):
                continue
        for fault in _differences(block, now):
            yield Broken(f"{fault} ({export.name} has it as it was sealed)", block_no=block.number)


def _covers(stone: Tombstone, block: ExportedBlock) -> bool:
    month = date.fromisoformat(block.line["segment"])
    return stone.segment == month and stone.first_block <= block.number <= stone.last_block


async def _read_events(
    pool: db.Pool, asked: Mapping[str, str], block: ExportedBlock
) -> dict[tuple[str, str], Mapping[str, Any]]:
    segment = date.fromisoformat(block.line["segment"])
    event_id = asked.get("event_id")
    rows = await pool.fetch(
        "select event from audit.read_events_between($1, $2, $3, $3, $4, $5, $6, $7)",
        block.line["previous_snapshot"],
        block.line["snapshot"],
        segment,
        datetime.fromisoformat(asked["from"]),
        datetime.fromisoformat(asked["to"]),
        asked.get("tenant"),
        None if event_id is None else UUID(event_id),
        timeout=LONG_SECONDS,
    )
    events = [_program().parse(row["event"]) for row in rows]
    return {(event["tenant_id"], event["event_id"]): event for event in events}


def _differences(block: ExportedBlock, now: Mapping[tuple[str, str], Mapping[str, Any]]) -> Iterator[str]:
    for key, event in block.events.items():
        found = now.get(key)
        if found is None:
            yield f"{_name(event)} of block {block.number} was removed, or its tenant, time or id altered"
        elif changed := [name for name in event if event[name] != found.get(name)]:
            yield f"{_name(event)} of block {block.number} was altered: {', '.join(changed)}"
    for key in now.keys() - block.events.keys():
        yield f"{_name(now[key])} was added to block {block.number}"


def _name(event: Mapping[str, Any]) -> str:
    return f"event {event['event_id']} ({event['event_type']} of tenant {event['tenant_id']} at {event['timestamp']})"
