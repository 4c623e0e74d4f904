"""`pulse audit tail`: the audit trail as it grows."""

import asyncio
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Self

import orjson
import typer
from pydantic import ValidationError

from services.cli.audit.app import app, as_auditor
from services.cli.audit.asking import record_read
from services.cli.errors import CommandFailed
from services.shared import db
from services.shared.visible_text import escape_json, terminal_text
from services.ui_iot.audit.trail import AuditFilter, Place, Stretch, TrailReading, place_of, read_place, write_place
from services.ui_iot.http.problems import Unprocessable

# As in the tails of the API. The sealer makes at most two blocks per second.
LOOK_SECONDS = 0.2


@app.command("tail")
def tail_events(
    *,
    tenant: Annotated[str | None, typer.Option(help="Only events of this tenant.")] = None,
    after: Annotated[str | None, typer.Option(metavar="CURSOR", help="Start after this place.")] = None,
    from_beginning: Annotated[bool, typer.Option("--from-beginning", help="Start with the first event.")] = False,
    follow: Annotated[bool, typer.Option(help="Wait for new events, or end after the newest one.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON Lines, each with its cursor.")] = False,
    event_type: Annotated[
        str | None, typer.Option(help="Only events of this type, such as config.rule_updated.")
    ] = None,
    category: Annotated[str | None, typer.Option(help="Only events of this category, such as auth.")] = None,
    severity: Annotated[str | None, typer.Option(help="Only events of this severity.")] = None,
    entity_type: Annotated[
        str | None, typer.Option(help="Only events about this kind of entity, such as rule.")
    ] = None,
    entity_id: Annotated[str | None, typer.Option(help="Only events about the entity with this id.")] = None,
    actor_id: Annotated[str | None, typer.Option(help="Only events of this actor.")] = None,
    ip_address: Annotated[str | None, typer.Option(help="Only events from this address.")] = None,
    trace_id: Annotated[str | None, typer.Option(help="Only events of this trace.")] = None,
    since: Annotated[str | None, typer.Option(help="Only events at this time or later.")] = None,
    until: Annotated[str | None, typer.Option(help="Only events before this time.")] = None,
) -> None:
    """Show the audit trail as it grows.

    Events are in sealed order, and the first is the next that is sealed. At its end, also after Ctrl-C, the command
    prints the cursor for --after.
    """
    options = locals()
    named = {name: options[name] for name in AuditFilter.model_fields if name in options}
    shown = {"tenant_id": tenant, "from_beginning": from_beginning, "as_json": as_json, "follow": follow}
    tail = Tail.make(named, after=after, **shown)
    try:
        as_auditor(tail.run)
    finally:
        if tail.cursor is not None:
            print(f"continue with --after {tail.cursor}", file=sys.stderr)


@dataclass(slots=True, kw_only=True)
class Tail:
    """Selection and progress of a tail. place: the place after the last event that was shown."""

    reading: TrailReading
    tenant_id: str | None
    place: Place | None
    from_beginning: bool
    as_json: bool
    follow: bool

    @classmethod
    def make(cls, named: Mapping[str, str | None], *, after: str | None, **rest: Any) -> Self:
        """Return a tail of the events with the given values, from a cursor on. Raises CommandFailed."""
        try:
            place = None if after is None else read_place(after)
            matching = AuditFilter.model_validate({name: value for name, value in named.items() if value is not None})
        except Unprocessable:
            raise CommandFailed("--after must be a cursor of `pulse audit tail` or of the API") from None
        except ValidationError as error:
            fault = error.errors()[0]
            raise CommandFailed(f"--{str(fault['loc'][0]).replace('_', '-')}: {fault['msg']}") from None
        return cls(reading=TrailReading(matching=matching.matching()), place=place, **rest)

    @property
    def cursor(self) -> str | None:
        """Cursor from which the next tail continues, None if nothing was read."""
        return None if self.place is None else write_place(self.place)

    async def run(self, pool: db.Pool) -> None:
        """Show events until there are no more, or until canceled if it follows the trail."""
        await record_read(pool, {"tenant_id": self.tenant_id, **self.reading.matching}, None, self.tenant_id)
        if self.place is None and not self.from_beginning:
            self.place = (await self._read(pool, TrailReading(matching={}, newest_first=True, limit=1))).end
        task = asyncio.current_task()
        # Python 3.11's wait_for, which the driver uses, swallows a Ctrl-C that comes together with an answer.
        while task is None or not task.cancelling():
            found = await self._read(pool, self.reading)
            for event in found.events:
                print(self._line(event))
                self.place = place_of(event)
            sys.stdout.flush()
            self.place = found.place
            if found.is_last:
                if not self.follow:
                    return
                await asyncio.sleep(LOOK_SECONDS)
        raise asyncio.CancelledError

    async def _read(self, pool: db.Pool, reading: TrailReading) -> Stretch:
        async with pool.acquire(timeout=db.ACQUIRE_SECONDS) as connection:
            return await reading.of_all(connection, self.place, tenant_id=self.tenant_id)

    def _line(self, event: Mapping[str, Any]) -> str:
        if self.as_json:
            return escape_json(orjson.dumps({**event, "cursor": write_place(place_of(event))})).decode()
        cells = (
            event["timestamp"],
            event["tenant_id"],
            event["severity"],
            event["event_type"],
            event["actor_id"] or "-",
            event["ip_address"] or "-",
            event["message"],
        )
        # A row that was written around the audit functions must not control the terminal.
        return terminal_text("  ".join(cells))
