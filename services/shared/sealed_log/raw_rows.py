"""Reads rows as bytes and hashes them here, so that no function in the database has to be trusted.

Who may replace audit._leaf_hash can make it tell the old hash of a new row. This needs the table and what comes with
Postgres alone.
"""

from collections.abc import Iterator, Mapping
from datetime import date
from hashlib import sha256
from itertools import groupby
from operator import itemgetter
from typing import Any

from services.shared import db
from services.shared.sealed_log.block_store import LONG_SECONDS
from services.shared.sealed_log.contents import Snapshot

_TAG = b"\x00pulse.audit.row.v1"
_ROWS = """
select l.xid::text::bigint as xid, l.timestamp, l.tenant_id, l.event_id, record_send(row(
  l.tenant_id, l.timestamp, l.event_id, l.recorded_at, l.event_type, l.category, l.severity, l.entity_type, l.entity_id,
  l.entity_name, l.action, l.message, l.details, l.source_service, l.actor_type, l.actor_id, l.actor_name, l.ip_address,
  l.trace_id, l.duration_ms, l.xid)) as record
from public.audit_log l
where pg_visible_in_snapshot(l.xid, $1::text::pg_snapshot) and """
_BEGUN_AFTER = _ROWS + "l.xid >= $2::text::xid8 and l.xid < $3::text::xid8"
_OPEN_THEN = _ROWS + "l.xid = any ($2::text[]::xid8[])"


async def read_raw(pool: db.Pool, previous: str, snapshot: str) -> Iterator[Mapping[str, Any]]:
    """The same as audit.read_leaves gives: transaction, month, leaf hashes in sealed order."""
    before, after = Snapshot.parse(previous), Snapshot.parse(snapshot)
    async with pool.acquire(timeout=db.ACQUIRE_SECONDS) as connection, connection.transaction(readonly=True):
        await connection.execute("set local enable_seqscan = off")
        bounds = (str(before.xmax), str(after.xmax))
        rows = await connection.fetch(_BEGUN_AFTER, snapshot, *bounds, timeout=LONG_SECONDS)
        rows += await connection.fetch(_OPEN_THEN, snapshot, [str(xid) for xid in before.open], timeout=LONG_SECONDS)
    keyed = [
        (row["xid"], row["timestamp"], row["tenant_id"].encode(), row["event_id"].bytes, row["record"]) for row in rows
    ]
    # The month follows from the time, so this is the order of a block.
    keyed.sort(key=itemgetter(0, 1, 2, 3))
    return (
        {"xid": xid, "segment": segment, "leaves": b"".join(sha256(_TAG + row[4]).digest() for row in group)}
        for (xid, segment), group in groupby(keyed, key=lambda row: (row[0], date(row[1].year, row[1].month, 1)))
    )
