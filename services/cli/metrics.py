"""`pulse metrics`: a list of the views of schema metrics, as the exporter reads them, and of their faults."""

import asyncio
from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated

import asyncpg
import orjson
import typer
from pydantic import ValidationError
from rich.table import Table

from exporter.deadline import Deadline
from exporter.exposition import family_of, names_of
from exporter.link import Link
from exporter.shape import ViewRefusal
from exporter.snapshot import ScrapeLimits, ViewReading, read_views
from services.cli import database
from services.cli.app import new_app
from services.cli.console import open_console
from services.cli.errors import CommandFailed
from services.cli.metric_lint import Bounds, lint
from services.shared import db
from services.shared.metrics import ProcessMetrics
from services.shared.settings import ExporterSettings
from services.shared.visible_text import terminal_text

app = new_app("List the metrics that are views, and find their faults.")
# A view that hangs takes its whole timeout, and all others are still read.
PATIENCE_SECONDS = 600.0
PASSES = 3
_AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command("list")
def show(*, as_json: _AsJson = False) -> None:
    """List the metrics that are views.

    Shows type, labels, rows, query time and help of each.
    """
    settings = exporter_settings()
    (readings,) = read_passes(settings, passes=1)
    rows = [describe(reading, max_rows=settings.exporter_max_rows) for reading in readings]
    rows.sort(key=lambda row: str(row["metric"]))
    if as_json:
        print(orjson.dumps({"metrics": rows}).decode())
    else:
        open_console(width=200).print(metrics_table(rows))


@app.command("lint")
def check(
    *,
    slow_ms: Annotated[
        float, typer.Option(min=0, help="Longest permitted query time of a view, in milliseconds.")
    ] = 100.0,
    max_series: Annotated[int, typer.Option(min=1, help="Largest permitted number of rows of a view.")] = 200,
    max_labels: Annotated[int, typer.Option(min=1, help="Largest permitted number of labels of a view.")] = 5,
    as_json: _AsJson = False,
) -> None:
    """Report views with faults.

    A fault is a view that is not served, is too expensive or breaks a convention. Exits with 1 if there is an
    error, with 0 if there are only warnings.
    """
    settings = exporter_settings()
    passes = read_passes(settings, passes=PASSES)
    bounds = Bounds(slow_ms, max_series, max_labels)
    findings = lint(passes, bounds=bounds, max_rows=settings.exporter_max_rows)
    errors = sum(finding.level == "error" for finding in findings)
    if as_json:
        print(orjson.dumps({"views": len(passes[-1]), "findings": [asdict(finding) for finding in findings]}).decode())
    else:
        for finding in findings:
            print(terminal_text(f"metrics.{finding.view}: {finding.level}: {finding.message} ({finding.rule})"))
        print(f"{len(passes[-1])} views: {errors} errors, {len(findings) - errors} warnings")
    if errors:
        raise typer.Exit(1)


def exporter_settings() -> ExporterSettings:
    """Return the exporter's settings for the configured database or the running stack's. Raises CommandFailed."""
    try:
        return ExporterSettings(database_url=database.role_url("exporter"))
    except ValidationError as error:
        first = error.errors()[0]
        raise CommandFailed(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from error


def read_passes(settings: ExporterSettings, *, passes: int) -> list[list[ViewReading]]:
    """Return the readings of each pass over all views. Raises CommandFailed if the database cannot be read."""
    try:
        return asyncio.run(_read(settings, passes))
    except (*db.UNAVAILABLE, asyncpg.PostgresError) as error:
        raise CommandFailed(f"the database cannot be read: {error or type(error).__name__}") from error


async def _read(settings: ExporterSettings, passes: int) -> list[list[ViewReading]]:
    link = Link(settings)
    limits = ScrapeLimits(settings.exporter_view_timeout_seconds, settings.exporter_max_rows)
    taken = names_of(ProcessMetrics(settings.service).registry.collect())
    try:
        return [
            await read_views(
                link,
                limits=limits,
                deadline=Deadline(PATIENCE_SECONDS, longest=PATIENCE_SECONDS),
                cost={},
                taken=taken,
            )
            for _ in range(passes)
        ]
    finally:
        link.drop()


def describe(reading: ViewReading, *, max_rows: int) -> dict[str, object]:
    """Return the facts about a metric. refused: the reason why it is not served, or None."""
    shape, family = reading.shape, family_of(reading, max_rows=max_rows)
    return {
        "view": reading.view.name,
        "metric": f"pulse_{reading.view.name}",
        "type": None if isinstance(shape, ViewRefusal) else shape.kind.value,
        "labels": [] if isinstance(shape, ViewRefusal) else list(shape.labels),
        "rows": None if isinstance(reading.rows, ViewRefusal) else len(reading.rows),
        "milliseconds": None if reading.seconds is None else round(reading.seconds * 1000, 3),
        "help": reading.view.comment,
        "refused": family.reason if isinstance(family, ViewRefusal) else None,
    }


def metrics_table(rows: Sequence[dict[str, object]]) -> Table:
    """Return the list as a table, with the reason in place of the help if a metric is not served."""
    shown = Table(box=None, padding=(0, 2, 0, 0))
    for title in ("metric", "type", "labels", "rows", "ms", "help"):
        shown.add_column(title, justify="right" if title in ("rows", "ms") else "left")
    for row in rows:
        labels, milliseconds = row["labels"], row["milliseconds"]
        assert isinstance(labels, list)
        shown.add_row(
            terminal_text(row["metric"]),
            str(row["type"] or ""),
            terminal_text(", ".join(labels)),
            "" if row["rows"] is None else str(row["rows"]),
            "" if milliseconds is None else f"{milliseconds:.1f}",
            terminal_text(f"NOT SERVED: {row['refused']}" if row["refused"] else row["help"]),
        )
    return shown
