"""A user's tracked table, and the events of its changes."""

from dataclasses import dataclass
from typing import Any

import asyncpg
import orjson

COLUMNS = "tenant_id text not null, id bigint primary key, name text, value double precision, secret text"


@dataclass(frozen=True, slots=True)
class Event:
    """The fields of a config event that the tests compare."""

    act: str
    entity_id: str | None
    details: dict[str, Any]
    tenant_id: str = "acme"


async def make_table(
    conn: asyncpg.Connection, name: str = "public.gauge", *, columns: str = COLUMNS, track: str | None = ""
) -> None:
    """Make a table of pulse_owner. track: further arguments of audit.track; None leaves the table untracked."""
    await conn.execute(f"create table {name} ({columns}); alter table {name} owner to pulse_owner")
    if track is not None:
        await conn.execute(f"select audit.track($t${name}$t${track})")


async def rows(conn: asyncpg.Connection) -> list[asyncpg.Record]:
    """Return whole events about rows and TRUNCATE, in the order of their statements and then of entity_id."""
    query = (
        "select * from audit_log where category = 'config' and event_type !~ '_(un)?tracked$'"
        " order by xid, entity_id, event_type, event_id"
    )
    return list(await conn.fetch(query))


async def events(conn: asyncpg.Connection) -> list[Event]:
    """Return the compared fields of these events; a created_at in them is left out."""
    return [
        Event(
            act=row["action"].rpartition("_")[2],
            entity_id=row["entity_id"],
            details=_without_times(orjson.loads(row["details"])),
            tenant_id=row["tenant_id"],
        )
        for row in await rows(conn)
    ]


def _without_times(details: dict[str, Any]) -> dict[str, Any]:
    for part in details.values():
        if isinstance(part, dict):
            part.pop("created_at", None)
            part.pop("updated_at", None)
    return details
