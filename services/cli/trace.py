"""`pulse trace`: the steps of one trace."""

import sys
from typing import Annotated, Any

import orjson
import typer

from services.cli import database
from services.cli.app import new_app
from services.cli.console import open_console
from services.cli.errors import CommandFailed
from services.cli.waterfall import waterfall_table
from services.shared import db
from services.shared.tracing import parse_trace_id
from services.shared.visible_text import escape_json

app = new_app()


@app.command()
def trace(
    trace_id: Annotated[str, typer.Argument(metavar="ID", help="Trace id: 32 hex digits, or a UUID.")],
    *,
    tenant: Annotated[str, typer.Option(help="Tenant of the trace.")] = "demo",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON in the format of the API.")] = False,
) -> None:
    """Show the steps of one trace, from request to webhook."""
    canonical = parse_trace_id(trace_id.strip().lower())
    if canonical is None:
        raise CommandFailed(f"{trace_id} is no trace id: give 32 hex digits or a UUID")
    rows = database.in_database(lambda pool: read_timeline(pool, tenant_id=tenant, trace_id=canonical))
    if not rows:
        raise CommandFailed(f"tenant {tenant} has nothing with trace id {canonical}")
    if as_json:
        document = {"trace_id": canonical, "truncated": False, "steps": rows}
        print(escape_json(orjson.dumps(document, option=orjson.OPT_UTC_Z)).decode())
    else:
        console = open_console()
        console.print(waterfall_table(rows, width=console.width if sys.stdout.isatty() else None))


async def read_timeline(pool: db.Pool, *, tenant_id: str, trace_id: str) -> list[dict[str, Any]]:
    """Return the tenant's rows of the trace, oldest first. Each names its parent row, or none."""
    rows = await database.rows_of(pool, tenant_id, "select * from api.trace_timeline($1)", trace_id)
    return [dict(row) for row in rows]
