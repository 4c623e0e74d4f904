"""`pulse audit hold`, `release` and `holds`: legal holds, which keep months of the audit trail from being dropped."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import MAXYEAR, MINYEAR, UTC, datetime
from typing import Annotated, Any

import typer
from rich.table import Table

from services.cli.audit.app import app, as_auditor
from services.cli.audit.places import parse_time
from services.cli.console import open_console
from services.cli.database import operator
from services.cli.home import PROGRAM
from services.shared import db, tracing
from services.shared.visible_text import terminal_text


@app.command()
def hold(
    *,
    start: Annotated[str, typer.Option("--from", help="Start of the hold (ISO 8601, or an age such as 7d).")],
    end: Annotated[str | None, typer.Option("--to", help="End of the hold. Without it, the hold has no end.")] = None,
    reason: Annotated[str, typer.Option(help="Reason, for the record.")],
) -> None:
    """Place a legal hold: no month that it touches is dropped."""
    held_from, held_to = parse_time(start), None if end is None else parse_time(end)
    hold_id, dropped = as_auditor(lambda pool: place_hold(pool, held_from, held_to, reason))
    print(f"Hold {hold_id} is in force until {PROGRAM} audit release {hold_id} --reason … ends it.")
    if dropped:
        print(f"These months were dropped before: {', '.join(dropped)}.")


@app.command()
def release(
    hold_id: Annotated[int, typer.Argument(metavar="ID", help="Number of the hold, as `pulse audit holds` shows it.")],
    *,
    reason: Annotated[str, typer.Option(help="Reason, for the record.")],
) -> None:
    """Release a legal hold."""
    as_auditor(lambda pool: release_hold(pool, hold_id, reason))
    print(f"Hold {hold_id} is released.")


@app.command()
def holds() -> None:
    """List all legal holds, including released ones."""
    found = as_auditor(list_holds)
    open_console().print(holds_table(found) if found else "There are no legal holds.")


async def place_hold(pool: db.Pool, start: datetime, end: datetime | None, reason: str) -> tuple[int, list[str]]:
    """Place a hold. Return its number and the months in its range that were dropped before."""
    async with _acting(pool) as connection:
        hold_id = await connection.fetchval("select audit.hold($1, $2, $3)", start, end, reason)
        gone = await connection.fetchval("select dropped_months from audit.legal_holds where hold_id = $1", hold_id)
    return hold_id, [f"{segment:%Y-%m}" for segment in gone]


async def release_hold(pool: db.Pool, hold_id: int, reason: str) -> None:
    """End a hold."""
    async with _acting(pool) as connection:
        await connection.execute("select audit.release($1, $2)", hold_id, reason)


async def list_holds(pool: db.Pool) -> Sequence[Mapping[str, Any]]:
    """Return all holds, by number."""
    return list(await pool.fetch("select * from audit.legal_holds order by hold_id"))


def holds_table(found: Sequence[Mapping[str, Any]]) -> Table:
    """Return a table with one row per hold."""
    table = Table("id", "from", "to", "placed", "by", "reason", "released")
    for row in found:
        released = (
            row["released_at"] and f"{_shown(row['released_at'])} by {row['released_by']}: {row['release_reason']}"
        )
        table.add_row(
            str(row["hold_id"]),
            _shown(row["starts_at"]),
            _shown(row["ends_at"]),
            _shown(row["placed_at"]),
            terminal_text(row["placed_by"]),
            terminal_text(row["reason"]),
            terminal_text(released or "in force"),
        )
    return table


@asynccontextmanager
async def _acting(pool: db.Pool) -> AsyncIterator[db.Connection]:
    actor = db.Actor("user", operator())
    with tracing.use_trace_id(None):
        async with db.act(pool, tenant_id="system", actor=actor, service="pulse_audit") as connection:
            yield connection


def _shown(moment: datetime) -> str:
    if moment.year in (MINYEAR, MAXYEAR):
        return "…"  # asyncpg's values for infinity
    return moment.astimezone(UTC).isoformat(sep=" ").replace("+00:00", "Z")
