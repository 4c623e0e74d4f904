"""`pulse audit prove`: the proof of one event."""

import sys
from datetime import timedelta
from typing import Annotated
from uuid import UUID

import typer

from services.cli.audit.app import app, as_auditor
from services.cli.audit.asking import record_read
from services.cli.audit.evidence import Question
from services.cli.audit.export import write_export
from services.cli.errors import CommandFailed
from services.shared import db


@app.command()
def prove(
    event_id: Annotated[UUID, typer.Argument(metavar="EVENT_ID", help="Id of the event.")],
    *,
    tenant: Annotated[str | None, typer.Option(help="Tenant of the event.")] = None,
) -> None:
    """Print the proof that an event is in the sealed trail.

    It is an export of this event. Check it with: pulse audit prove ID | python docs/verify_export.py --key FILE -
    """

    async def answer(pool: db.Pool) -> None:
        await write_export(pool, await find(pool, event_id, tenant), sys.stdout.buffer)

    as_auditor(answer)


async def find(pool: db.Pool, event_id: UUID, tenant: str | None) -> Question:
    """Return the question that finds the event. Raises CommandFailed if it is missing, ambiguous or not sealed.

    Such a failure is recorded as a read, because it is an answer. An export records itself.
    """
    rows = await pool.fetch("select tenant_id, happened_at, block_no from audit.find_event($1, $2)", event_id, tenant)
    if len(rows) != 1 or rows[0]["block_no"] is None:
        await record_read(pool, {"event_id": str(event_id), "tenant": tenant}, 0, tenant)
    of = "" if tenant is None else f" of tenant {tenant}"
    if not rows:
        raise CommandFailed(f"there is no event {event_id}{of}: it never existed, or retention dropped its month")
    if len(rows) > 1:
        named = ", ".join(sorted({row["tenant_id"] for row in rows}))
        raise CommandFailed(f"{len(rows)} events have the id {event_id} (tenants {named}): choose one with --tenant")
    [row] = rows
    if row["block_no"] is None:
        raise CommandFailed(f"event {event_id} is not sealed yet: a running sealer seals it within a second")
    happened_at = row["happened_at"]
    return Question(
        happened_at, happened_at + timedelta(microseconds=1), row["tenant_id"], event_id, block_no=row["block_no"]
    )
