"""`pulse audit tail`."""

import sys
from typing import Annotated

import typer

from services.cli.audit.app import app, as_auditor


@app.command("tail")
def tail_events(
    *,
    tenant: Annotated[str | None, typer.Option(help="Only this tenant's events.")] = None,
    after: Annotated[str | None, typer.Option(metavar="CURSOR", help="Go on right after this place.")] = None,
    from_beginning: Annotated[bool, typer.Option("--from-beginning", help="Start with the first event.")] = False,
    follow: Annotated[bool, typer.Option(help="Wait for what comes; --no-follow ends with what is there.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON Lines, each with its cursor.")] = False,
    event_type: Annotated[str | None, typer.Option(help="Only this type, such as config.rule_updated.")] = None,
    category: Annotated[str | None, typer.Option(help="Only types that begin with this word.")] = None,
    severity: Annotated[str | None, typer.Option(help="Only this severity.")] = None,
    entity_type: Annotated[str | None, typer.Option(help="Only this kind of thing.")] = None,
    entity_id: Annotated[str | None, typer.Option(help="Only the thing with this id.")] = None,
    actor_id: Annotated[str | None, typer.Option(help="Only what this actor did.")] = None,
    ip_address: Annotated[str | None, typer.Option(help="Only what came from this address.")] = None,
    trace_id: Annotated[str | None, typer.Option(help="Only what this trace caused.")] = None,
    since: Annotated[str | None, typer.Option(help="Only events at this time or later.")] = None,
    until: Annotated[str | None, typer.Option(help="Only events before this time.")] = None,
) -> None:
    """Show the audit trail in its sealed order, each event once, and what is added to it.

    Starts with what is sealed from now on. At its end, Ctrl-C included, it says which cursor goes on from there.
    """
    named = {
        "event_type": event_type,
        "category": category,
        "severity": severity,
        "entity_type": entity_type,
        "entity_id": entity_id,
        "actor_id": actor_id,
        "ip_address": ip_address,
        "trace_id": trace_id,
        "since": since,
        "until": until,
    }
    # It brings FastAPI with it, which takes longer to load than any other command takes to run.
    from services.cli.audit.following import Tail  # noqa: PLC0415

    shown = {"tenant_id": tenant, "from_beginning": from_beginning, "as_json": as_json, "follow": follow}
    tail = Tail.make(named, after=after, **shown)
    try:
        as_auditor(tail.run)
    finally:
        if tail.cursor is not None:
            print(f"go on with --after {tail.cursor}", file=sys.stderr)
