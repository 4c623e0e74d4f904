"""Rows at the end of a run, read as a superuser so that no policy hides any."""

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import asyncpg
import orjson

from services.cli.errors import CommandFailed
from tests.chaos.config_replay import Change, Row, find_differences
from tests.chaos.judgement import BrokenPromise, Gap
from tests.chaos.stack import API, SEALERS, TENANT, ChaosStack

# A sealer that failed often waits up to 30 s before it tries again, and abandoned spools are found every 30 s.
SETTLE_SECONDS = 60.0

_STORED = """
select trace_id, event_type, count(*) as rows
from public.audit_log
where trace_id is not null
group by trace_id, event_type
"""
_GAPS = "select event_id::text, details from public.audit_log where event_type = 'audit.gap'"
_CHANGES = """
select entity_type, entity_id, event_id::text, event_type, details
from public.audit_log
where event_type like 'config.%' and tenant_id = $1
order by xid, timestamp, event_id
"""
_UNSEALED = """
select (select count(*) from public.audit_log) - (select coalesce(sum(row_count), 0) from audit.blocks)
"""
_TABLES: Final = {
    "device": "select device_id::text as id, to_jsonb(t) as content from public.devices t where tenant_id = $1",
    "rule": "select rule_id::text as id, to_jsonb(t) as content from public.alert_rules t where tenant_id = $1",
    "channel": "select channel_id::text as id, to_jsonb(t) as content from public.notification_channels t"
    " where tenant_id = $1",
    "route": "select route_id::text as id, to_jsonb(t) as content from public.notification_routes t"
    " where tenant_id = $1",
}


@dataclass(frozen=True, slots=True)
class RunEvidence:
    """Number of rows by trace and type, gap rows, and differences between the configuration and its events."""

    stored: dict[tuple[str, str], int]
    gaps: Sequence[Gap]
    entities: int
    broken: Sequence[BrokenPromise]


async def settle(stack: ChaosStack) -> list[BrokenPromise]:
    """Wait until every spool is drained, the API has stopped and all rows are sealed. Return what did not happen."""
    await stack.until_ready(API, *SEALERS)
    broken = []
    deadline = asyncio.get_running_loop().time() + SETTLE_SECONDS
    # A living API keeps a ledger and nothing else.
    while any(not name.endswith("/ledger") for name in stack.disk.leftovers()):
        if asyncio.get_running_loop().time() > deadline:
            break
        await asyncio.sleep(0.1)
    await stack.supervisor.stop([API])
    if left := stack.disk.leftovers():
        broken.append(BrokenPromise("spool not drained", ", ".join(left)))
    connection = await stack.connect()
    try:
        while unsealed := await connection.fetchval(_UNSEALED):
            if asyncio.get_running_loop().time() > deadline:
                broken.append(BrokenPromise("rows outside of the sealed order", f"{unsealed} rows are not sealed"))
                break
            await asyncio.sleep(0.1)
    finally:
        await connection.close()
    return broken


async def read_evidence(connection: asyncpg.Connection) -> RunEvidence:
    """Read everything that the judgement needs."""
    stored = {(row["trace_id"], row["event_type"]): row["rows"] for row in await connection.fetch(_STORED)}
    gaps = [Gap.read(row["event_id"], orjson.loads(row["details"])) for row in await connection.fetch(_GAPS)]
    changes: dict[tuple[str, str], list[Change]] = defaultdict(list)
    for row in await connection.fetch(_CHANGES, TENANT):
        act = row["event_type"].rpartition("_")[2]
        changes[row["entity_type"], row["entity_id"]].append(Change(row["event_id"], act, orjson.loads(row["details"])))
    rows = await _read_config(connection)
    entities = sorted({key for key in changes if key[0] in _TABLES} | set(rows))
    broken = [
        fault
        for entity, entity_id in entities
        for fault in find_differences(
            f"{entity} {entity_id}", changes[entity, entity_id], rows.get((entity, entity_id))
        )
    ]
    if not entities:
        raise CommandFailed("the run changed no configuration and so proves nothing about its events: make it longer")
    return RunEvidence(stored, gaps, len(entities), broken)


async def _read_config(connection: asyncpg.Connection) -> dict[tuple[str, str], Row]:
    found: dict[tuple[str, str], Any] = {}
    for entity, query in _TABLES.items():
        for row in await connection.fetch(query, TENANT):
            found[entity, row["id"]] = orjson.loads(row["content"])
    return found
