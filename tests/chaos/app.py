"""`pulse chaos`: runs that prove promises by breaking everything around them."""

import asyncio
import contextlib
import random
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from rich.console import Console
from rich.table import Table

from services.cli.app import new_app
from services.cli.errors import CommandFailed
from tests.chaos.disk import spool_disk
from tests.chaos.judgement import BrokenPromise
from tests.chaos.memory import BOUND_BYTES
from tests.chaos.run import AuditReport, Plan, run_chaos
from tests.chaos.trace_run import TraceReport, run_traces

app = new_app("Prove promises by breaking everything around them.")
REPORT = "report.json"
_Report = TypeVar("_Report", AuditReport, TraceReport)
_MOST_SHOWN = 20


@app.command()
def audit(
    *,
    minutes: Annotated[
        float, typer.Option(min=0.1, max=1440, help="Length of the run. 36 minutes give 1,000 faults.")
    ] = 1,
    seed: Annotated[int | None, typer.Option(help="Seed of the faults, by default a random one.")] = None,
    keep: Annotated[Path | None, typer.Option(help="Keep journal, faults and logs in this directory.")] = None,
) -> None:
    """Break everything around the audit trail.

    Kills processes, cuts connections and fills the disk, then compares the trail with the client's responses. Exits
    with 1 if a promise was broken.
    """
    if not sys.platform.startswith("linux"):
        raise CommandFailed("pulse chaos audit needs Linux, because it reads /proc")
    console = Console(width=None if sys.stdout.isatty() else 120)
    with _root() as root, spool_disk(root / "spool") as disk:
        plan = Plan(root, random.randrange(1 << 32) if seed is None else seed, minutes * 60)
        running = run_chaos(plan, disk, lambda line: console.print(line, highlight=False))
        report = _carry_out(running, _table, console=console, root=root, keep=keep)
    if report.broken:
        raise typer.Exit(1)


@app.command()
def traces(
    *,
    count: Annotated[
        int, typer.Option(min=16, max=1_000_000, help="Number of traces, with one reading each.")
    ] = 10_000,
    seed: Annotated[int | None, typer.Option(help="Seed of the kills, by default a random one.")] = None,
    keep: Annotated[Path | None, typer.Option(help="Keep report and logs in this directory.")] = None,
) -> None:
    """Kill services, and look for incomplete traces.

    Kills services while readings open and close alerts, then looks for traces with a missing step. Exits with 1 if
    there is one.
    """
    console = Console(width=None if sys.stdout.isatty() else 120)
    with _root() as root:
        chosen = random.randrange(1 << 32) if seed is None else seed
        running = run_traces(root, count=count, seed=chosen, say=lambda line: console.print(line, highlight=False))
        report = _carry_out(running, _trace_table, console=console, root=root, keep=keep)
    if report.broken:
        raise typer.Exit(1)


def _carry_out(
    running: Coroutine[Any, Any, _Report],
    table: Callable[[_Report], Table],
    *,
    console: Console,
    root: Path,
    keep: Path | None,
) -> _Report:
    """Write and print the report of a run. Keep its files if it failed or the caller asked for them."""
    try:
        report = asyncio.run(running)
    except asyncio.CancelledError:
        raise typer.Exit(130) from None
    except Exception:
        _show_evidence(console, root, keep)
        raise
    report.write(root / REPORT)
    console.print(table(report))
    _show_broken(console, report.broken)
    if report.broken or keep is not None:
        _show_evidence(console, root, keep)
    return report


@contextlib.contextmanager
def _root() -> Iterator[Path]:
    """Yield a new directory that the server's user can enter."""
    root = Path(tempfile.mkdtemp(prefix="pulse-chaos-"))
    root.chmod(0o711)
    try:
        yield root
    finally:
        shutil.rmtree(root, ignore_errors=True)


def _show_evidence(console: Console, root: Path, keep: Path | None) -> None:
    """Move the files that explain a run out of the directory that will be removed, and print their place."""
    kept = Path(tempfile.mkdtemp(prefix="pulse-chaos-evidence-")) if keep is None else keep
    kept.mkdir(parents=True, exist_ok=True)
    for name in ("journal.jsonl", "faults.jsonl", REPORT, "log", "checkpoints"):
        if (root / name).exists():
            shutil.move(root / name, kept / name)
    console.print(f"\nEvidence: {kept}", highlight=False, soft_wrap=True)


def _show_broken(console: Console, promises: Sequence[BrokenPromise]) -> None:
    for what, count in Counter(broken.what for broken in promises).items():
        console.print(f"\nBROKEN: {what}: {count}", highlight=False)
        cases = [broken.evidence for broken in promises if broken.what == what]
        for line in cases[:_MOST_SHOWN]:
            console.print(f"  {line}", highlight=False, soft_wrap=True)


def _trace_table(report: TraceReport) -> Table:
    return _pairs(
        ("seed", str(report.seed)),
        ("acknowledged traces", f"{report.traces}, after {report.repeats} repeated requests"),
        ("kills", f"{sum(report.kills.values())} ({_counts(report.kills)})"),
        ("webhooks by answer", _counts({str(status): count for status, count in report.webhooks.items()})),
        ("rows of the traces", f"{sum(report.rows.values())} ({_counts(report.rows)})"),
        ("orphans", str(report.orphans)),
        ("promises", _verdict(report.broken)),
    )


def _table(report: AuditReport) -> Table:
    left_out = sum(report.left_out.values())
    return _pairs(
        ("seed", str(report.seed)),
        ("length", f"{report.seconds:.0f} s"),
        ("disk of the spool", report.disk),
        ("faults", f"{sum(report.faults.values())} ({_counts(report.faults)})"),
        ("faults left out", f"{left_out} ({_counts(report.left_out)})" if left_out else "none"),
        ("requests", f"{sum(report.outcomes.values())} ({_counts(report.outcomes)})"),
        ("acknowledged events", f"{report.acknowledged}, each on record once unless listed below"),
        ("configuration", f"{report.entities} entities replayed from their events"),
        (
            "refusals lost while blocked",
            f"{report.lost_refusals}, under {report.gap_rows} gap rows for {report.gap_events} events",
        ),
        ("sealed", f"{report.sealed_rows} rows in {report.blocks} blocks under {report.leases} leases"),
        ("anchored checkpoints", f"{report.checkpoints}, each compared with the trail"),
        ("peak memory of the API", f"{report.peak_bytes >> 20} MB of {BOUND_BYTES >> 20} MB allowed"),
        ("promises", _verdict(report.broken)),
    )


def _pairs(*rows: tuple[str, str]) -> Table:
    table = Table(show_header=False, box=None)
    for name, value in rows:
        table.add_row(name, value)
    return table


def _verdict(promises: Sequence[BrokenPromise]) -> str:
    return f"BROKEN {len(promises)} times" if promises else "kept"


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))
