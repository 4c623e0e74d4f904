"""Audit events to read, the SQL reader of sealed events, and its reference query."""

from typing import Any

import asyncpg
import orjson

# The expected result of the readers, spelled out: block after block, by the definition of a block.
REFERENCE = """
select l.event_id::text as event_id, l.tenant_id
from audit.blocks b
cross join audit._rows_between(b.previous_snapshot, b.snapshot) l
where audit._segment(l.timestamp) = b.segment
order by b.block_no, l.xid, l.timestamp, l.tenant_id collate "C", l.event_id
"""


async def write(
    conn: asyncpg.Connection, count: int, *, tenant_id: str = "acme", ago: str = "0", kind: str = "x"
) -> None:
    """Write the given number of events in one transaction, each a second before the next."""
    await conn.execute(
        "select audit.write(array(select audit.event($1, 'alert.opened', p_entity_type => $4, p_entity_id => n::text,"
        " p_timestamp => now() - $3::text::interval + n * interval '1 second') from generate_series(1, $2) n))",
        tenant_id,
        count,
        ago,
        kind,
    )


async def read(
    conn: asyncpg.Connection,
    place: Any = None,
    *,
    newest: bool = True,
    limit: int = 50,
    tenant: str | None = None,
    **matching: Any,
) -> dict[str, Any]:
    """Return the result of audit._read_sealed."""
    text = await conn.fetchval(
        "select audit._read_sealed($1, $2::text::jsonb, $3::text::jsonb, $4, $5)::text",
        tenant,
        orjson.dumps(matching).decode(),
        None if place is None else orjson.dumps(place).decode(),
        newest,
        limit,
    )
    found: dict[str, Any] = orjson.loads(text)
    return found
