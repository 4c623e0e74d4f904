"""`pulse audit export`: sealed events as files."""

import os
import sys
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing, contextmanager
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Literal

import orjson
import typer

from services.cli.audit.app import app, as_auditor
from services.cli.audit.asking import ask, read_entries, read_head, read_keys
from services.cli.audit.evidence import Evidence, Question
from services.cli.audit.lines import Lines
from services.cli.audit.ocsf import to_ocsf
from services.cli.audit.places import parse_time, public_keys
from services.cli.audit.progress import show_progress
from services.cli.errors import CommandFailed
from services.cli.home import Home
from services.shared import db
from services.shared.sealed_log.block import Broken
from services.shared.sealed_log.kept import Kept, read_kept

Advance = Callable[[int], None]


@app.command()
def export(
    *,
    from_time: Annotated[
        str, typer.Option("--from", metavar="TIME", help="Start of the export (ISO 8601, or an age such as 7d).")
    ],
    to_time: Annotated[
        str, typer.Option("--to", metavar="TIME", help="End of the export, exclusive. By default, now.")
    ] = "0s",
    tenant: Annotated[str | None, typer.Option(help="Export this tenant only.")] = None,
    output_format: Annotated[
        Literal["jsonl", "ocsf"], typer.Option("--format", help="jsonl has proofs, ocsf is for a SIEM.")
    ] = "jsonl",
    checkpoint: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Prove against the newest checkpoint in this file or directory.")
    ] = None,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Write to this file, readable by you only.")] = None,
) -> None:
    """Export sealed events with their proofs.

    The export is JSON Lines in sealed order. python docs/verify_export.py checks it on any machine with the public key.
    It is recorded in the audit trail first.
    """
    question = Question(parse_time(from_time), parse_time(to_time), tenant)
    if question.from_time >= question.to_time:
        raise CommandFailed("--from must be earlier than --to")
    kept = None if checkpoint is None else _newest(checkpoint)
    render = to_ocsf if output_format == "ocsf" else None
    with _open(out) as file, show_progress("exporting events") as (begin, advance):
        as_auditor(
            lambda pool: write_export(pool, question, file, kept=kept, render=render, begin=begin, advance=advance)
        )


async def write_export(
    pool: db.Pool,
    question: Question,
    file: BinaryIO,
    *,
    kept: Kept | None = None,
    render: Callable[[dict[str, Any]], Any] | None = None,
    begin: Advance = lambda _: None,
    advance: Advance = lambda _: None,
) -> None:
    """Write the evidence, or each event as `render` returns it."""
    head = await read_head(pool, kept)
    evidence, count = await ask(pool, question, head)
    begin(count)
    lines = Lines()
    if render is None:
        file.write(lines.header(question, head, await read_keys(pool), await read_entries(pool, head), count))
        source = _proven(evidence, lines)
    else:
        source = _rendered(evidence, render)
    written = 0
    async with aclosing(source):
        async for line, events in source:
            file.write(line)
            written += events
            advance(events)
    if written != count:
        raise CommandFailed(f"{count} events were counted and {written} found; run pulse audit verify")
    if render is None:
        file.write(lines.trailer())
    file.flush()


async def _proven(evidence: Evidence, lines: Lines) -> AsyncGenerator[tuple[bytes, int], None]:
    block_no = -1
    async with aclosing(evidence.events()) as events:
        async for event in events:
            if event.block.block.block_no != block_no:
                block_no = event.block.block.block_no
                yield lines.block(event.block), 0
            yield lines.event(event), 1


async def _rendered(
    evidence: Evidence, render: Callable[[dict[str, Any]], Any]
) -> AsyncGenerator[tuple[bytes, int], None]:
    async with aclosing(evidence.events()) as events:
        async for event in events:
            yield orjson.dumps(render(orjson.loads(event.event)), option=orjson.OPT_APPEND_NEWLINE), 1


def _newest(place: Path) -> Kept:
    try:
        kept = read_kept(place, public_keys(Home.find(), None))
    except Broken as fault:
        raise CommandFailed(str(fault)) from None
    if not kept:
        raise CommandFailed(f"{place} holds no checkpoint")
    return kept[-1]


@contextmanager
def _open(out: Path | None) -> Iterator[BinaryIO]:
    """Open standard output, or a draft that gets the name of the file when it is complete."""
    if out is None:
        yield sys.stdout.buffer
        return
    draft = out.with_name(f".{out.name}.part")
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
        draft.replace(out)
    finally:
        draft.unlink(missing_ok=True)
