"""`pulse audit tail`: the audit trail as it grows."""

import sys
from typing import Annotated

import typer

from services.cli.audit.app import app, as_auditor


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
    """Show the audit trail in sealed order, and new events as they are sealed.

    Starts with events sealed from now on. At its end, also after Ctrl-C, it prints the cursor for --after.
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
            print(f"continue with --after {tail.cursor}", file=sys.stderr)
