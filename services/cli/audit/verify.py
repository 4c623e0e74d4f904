"""`pulse audit verify`: the check of the whole sealed log."""

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import orjson
import psycopg
import typer

from migrations.layer_catalog import one_line
from migrations.layer_check import Findings, read_findings
from services.cli.audit.against import compare_export, read_export
from services.cli.audit.app import app, as_auditor, auditor_url
from services.cli.audit.places import checkpoint_directory, key_file, parse_time, public_keys
from services.cli.audit.progress import show_progress
from services.cli.audit.witness import Witness, is_elsewhere, read_memory
from services.cli.errors import CommandFailed
from services.cli.home import PROGRAM, Home
from services.shared import db
from services.shared.sealed_log.block import Broken
from services.shared.sealed_log.contents import count_of
from services.shared.sealed_log.kept import empty_files, read_kept
from services.shared.sealed_log.verification import Report, Verification
from services.shared.visible_text import escape_json, terminal_text

LOCAL_TRUST = 3
"""Exit status of a log that agrees with keys and checkpoints of this machine only."""
_LATE_SECONDS = 60.0
"""Age of an unsealed row after which the sealer must have stopped. It looks for rows twice per second."""


@app.command()
def verify(
    *,
    since: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Hash only rows sealed since this time: ISO 8601, or an age such as 7d."),
    ] = None,
    checkpoint: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Kept checkpoints: a file or a directory.")
    ] = None,
    keys: Annotated[
        Path | None, typer.Option("--keys", "--key", metavar="FILE", help="Public keys to trust, one per line.")
    ] = None,
    against: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="Older export or proof to compare the rows with. Repeatable."),
    ] = None,
    independent: Annotated[
        bool,
        typer.Option(
            "--independent", help="Hash on this machine and trust no function of the database. Takes twice as long."
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Check that the audit trail was not altered.

    Hashes every sealed row again and compares blocks and tree with the checkpoints kept outside the database.

    Exit status: 0, the trail is as it was sealed; 1, a fault was found; 2, it could not be verified; 3, it is
    consistent, but public keys and checkpoints are from this machine only, where an intruder may have replaced them
    with the log. For 0, give --keys, --checkpoint or --against a file from elsewhere.
    """
    try:
        report, witness = _verify(since, checkpoint, keys, against or [], independent=independent)
    except Exception as error:
        if os.environ.get("PULSE_DEBUG"):
            raise
        # No other failure may look like an altered log, which is status 1.
        print(terminal_text(f"pulse: not verified: {_one_line(error)}"), file=sys.stderr)
        raise typer.Exit(2) from error
    if as_json:
        print(escape_json(orjson.dumps(_as_json(report, witness), option=orjson.OPT_INDENT_2)).decode())
    else:
        for line in _as_lines(report, witness):
            print(terminal_text(line))
    if report.faults:
        raise typer.Exit(1)
    if not witness.is_outside:
        raise typer.Exit(LOCAL_TRUST)


def _one_line(error: Exception) -> str:
    text = str(error) if isinstance(error, CommandFailed | OSError) else f"{type(error).__name__}: {error}"
    return " ".join(text.split())


def _verify(
    since: str | None, checkpoint: Path | None, keys: Path | None, against: Sequence[Path], *, independent: bool
) -> tuple[Report, Witness]:
    home = Home.find()
    place = checkpoint or checkpoint_directory(home)
    if checkpoint is not None and not checkpoint.exists():
        raise CommandFailed(f"there is no file {checkpoint}")
    start = parse_time(since) if since is not None else None
    trusted = public_keys(home, keys)
    own = key_file(home)
    outside = is_elsewhere(keys, own.public_path) or is_elsewhere(checkpoint, checkpoint_directory(home))
    witness = Witness(place, outside, [f"{file} is empty" for file in empty_files(place)])
    try:
        kept = read_kept(place, trusted)
    except Broken as fault:
        report = Report()
        report.add(fault)
        return report, witness
    remembered = read_memory(own, trusted)
    exports = [read_export(file, trusted) for file in against]
    with show_progress("hashing rows") as (begin, advance):

        async def hash_rows(pool: db.Pool) -> Report:
            known = sorted({*kept, *remembered.kept})
            report = await Verification(pool, trusted, known, start, independent, begin, advance).run()
            report.checkpoints = len(kept)
            for fault in remembered.faults:
                report.add(fault)
            for export in exports:
                async for fault in compare_export(pool, export, trusted, report.entries):
                    report.add(fault)
            report.compared = sum(export.events for export in exports)
            return report

        report = _in_layer(auditor_url(home), hash_rows, witness)
    if report.blocks and not kept and not report.faults:
        raise CommandFailed(f"{place} holds no checkpoint, so there is nothing outside the database to compare with")
    return report, witness._replace(is_outside=witness.is_outside or report.compared > 0)


def _in_layer(url: str, hash_rows: Callable[[db.Pool], Awaitable[Report]], witness: Witness) -> Report:
    """Return the faults of the rows and of the SQL layer that they are read through. Raises CommandFailed."""
    layer = Findings([], [])

    async def work(pool: db.Pool) -> Report:
        nonlocal layer
        layer = await asyncio.to_thread(_compare_layer, url)
        return await hash_rows(pool)

    try:
        report = as_auditor(work)
    except CommandFailed as error:
        # A failure in an altered layer is a fault of the layer.
        if not layer.faults:
            raise
        report = Report()
        report.add(Broken(f"the rows were not verified: {error}"))
    for fault in layer.faults:
        report.add(Broken(f"the SQL layer is not as it was applied: {fault}"))
    witness.warnings.extend(layer.notes)
    return report


def _compare_layer(url: str) -> Findings:
    """Compare the SQL layer with its record, by queries of this program. Raises CommandFailed."""
    try:
        return read_findings(url)
    except (psycopg.errors.UndefinedTable, psycopg.errors.InsufficientPrivilege) as error:
        raise CommandFailed(
            f"the SQL layer was not compared: {one_line(error)}; if the database is older, run {PROGRAM} migrate"
        ) from error
    except psycopg.Error as error:
        raise CommandFailed(f"the SQL layer was not compared: {one_line(error)}") from error


def _as_lines(report: Report, witness: Witness) -> Iterator[str]:
    for fault in report.faults:
        yield f"BROKEN: {fault}."
    if report.fault_count > len(report.faults):
        yield f"… and {report.fault_count - len(report.faults):,} more faults."
    if not report.faults:
        yield from _all_is_well(report, witness)
    for warning in witness.warnings:
        yield f"WARNING: {warning}."
    if report.unsealed:
        yield f"{_waiting(report)}{count_of(report.unsealed)} not sealed yet, since {report.unsealed_since:%H:%M:%S}Z."


def _all_is_well(report: Report, witness: Witness) -> Iterator[str]:
    if report.blocks == 0:
        yield "Nothing is sealed yet."
    else:
        yield (
            f"All is as it was sealed: {count_of(report.rows)} in {report.blocks:,} blocks, {report.hashed:,} of "
            f"them hashed again, in agreement with {report.checkpoints:,} checkpoints from {witness.place}."
        )
    if report.compared:
        yield f"{report.compared:,} exported events are unchanged."
    for entry in report.entries:
        yield f"The log {entry.in_words()}."
    if report.released:
        yield f"{count_of(report.released)} were dropped by retention, with signed tombstones."
    if not witness.is_outside:
        yield (
            "Consistent, but only with this machine: no public key, checkpoint or export came from elsewhere "
            "(--keys, --checkpoint, --against)."
        )


def _waiting(report: Report) -> str:
    return "WARNING, no sealer seems to run: " if _is_late(report) else ""


def _is_late(report: Report) -> bool:
    since = report.unsealed_since
    return since is not None and (datetime.now(UTC) - since).total_seconds() > _LATE_SECONDS


def _as_json(report: Report, witness: Witness) -> dict[str, object]:
    return {
        "ok": not report.faults,
        "trusted_from_outside": witness.is_outside,
        "warnings": witness.warnings,
        "blocks": report.blocks,
        "rows": report.rows,
        "rows_hashed": report.hashed,
        "rows_released": report.released,
        "rows_unsealed": report.unsealed,
        "unsealed_since": report.unsealed_since,
        "sealing_is_late": _is_late(report),
        "entries": [entry.in_words() for entry in report.entries],
        "events_compared": report.compared,
        "checkpoints": report.checkpoints,
        "fault_count": report.fault_count,
        "faults": [{"block": fault.block_no, "message": str(fault)} for fault in report.faults],
    }
