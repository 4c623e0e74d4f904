"""Run of `pulse chaos audit`: traffic and faults for a time, then the judgement."""

import asyncio
import contextlib
import signal
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import orjson

from services.cli.signing_key import SigningKey
from tests.chaos.disk import SpoolDisk
from tests.chaos.evidence import read_evidence, settle
from tests.chaos.faults import Fault, make_schedule
from tests.chaos.injector import Injector
from tests.chaos.journal import ClientJournal
from tests.chaos.judgement import BrokenPromise, Window, count_outcomes, judge
from tests.chaos.memory import BOUND_BYTES, PeakMemory
from tests.chaos.sealed_log import verify_log
from tests.chaos.stack import API, DATABASE_SECONDS, ChaosStack, open_stack
from tests.chaos.traffic import AuditTraffic, ClientTokens

JOURNAL = "journal.jsonl"
FAULTS = "faults.jsonl"

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Plan:
    """Plan of a run. root: a directory that the server's user can enter."""

    root: Path
    seed: int
    seconds: float


@dataclass(slots=True)
class AuditReport:
    """Numbers and findings of a run."""

    seed: int
    seconds: float
    disk: str
    faults: Mapping[str, int] = field(default_factory=dict)
    left_out: Mapping[str, int] = field(default_factory=dict)
    outcomes: Mapping[str, int] = field(default_factory=dict)
    acknowledged: int = 0
    entities: int = 0
    lost_refusals: int = 0
    gap_rows: int = 0
    gap_events: int = 0
    sealed_rows: int = 0
    blocks: int = 0
    leases: int = 0
    checkpoints: int = 0
    peak_bytes: int = 0
    broken: list[BrokenPromise] = field(default_factory=list)

    def write(self, file: Path) -> None:
        """Write it as JSON."""
        file.write_bytes(orjson.dumps(asdict(self), option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS))


async def run_chaos(plan: Plan, disk: SpoolDisk, say: Say) -> AuditReport:
    """Carry out a run. SIGTERM and SIGINT end it early and stop everything that it started."""
    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    report = AuditReport(
        plan.seed,
        plan.seconds,
        "a small tmpfs that is filled"
        if disk.can_fill
        else f"no disk could be mounted: a limit of {disk.spool_bytes // 1024} KiB instead",
    )
    say("starting a server, the API and two sealers")
    async with open_stack(plan.root, disk) as stack:
        peak = PeakMemory(stack.children[API])
        async with _in_background(peak.watch()):
            journal, injector = await _hurt(plan, stack, say)
            say("faults are over: waiting until everything is drained and sealed")
            report.broken += await settle(stack)
        report.peak_bytes = peak.peak_bytes
        await _judge(stack, journal, injector, report)
    return report


async def _hurt(plan: Plan, stack: ChaosStack, say: Say) -> tuple[ClientJournal, Injector]:
    schedule = make_schedule(plan.seed, plan.seconds)
    with (plan.root / JOURNAL).open("wb") as written, (plan.root / FAULTS).open("wb") as faults:
        journal = ClientJournal(written)
        tokens = ClientTokens.make(stack.key, SigningKey(plan.root / "stranger"))
        traffic = AuditTraffic(stack.api_url, journal, tokens, plan.seed)

        def note(fault: Fault, outcome: str) -> None:
            line = {**asdict(fault), "ended_at": time.time(), "told": outcome}
            faults.write(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE))
            faults.flush()

        injector = Injector(stack, note)
        started = time.monotonic()

        async def show() -> None:
            while True:
                done = injector.done.total()
                say(f"{time.monotonic() - started:4.0f} s  {done} faults  {len(journal.requests)} requests")
                await asyncio.sleep(max(10.0, plan.seconds / 60))

        say(f"{len(schedule)} faults in {plan.seconds:.0f} s, seed {plan.seed}")
        async with asyncio.TaskGroup() as tasks, _in_background(show()):
            sending = tasks.create_task(traffic.run())
            await injector.run(schedule)
            await asyncio.sleep(max(0.0, plan.seconds - (time.monotonic() - started)))
            traffic.stop()
            await sending
        return journal, injector


async def _judge(stack: ChaosStack, journal: ClientJournal, injector: Injector, report: AuditReport) -> None:
    whole = Window(0.0, time.time())
    connection = await stack.connect()
    try:
        evidence = await read_evidence(connection)
    finally:
        await connection.close()
    public_keys = stack.key_file.with_name(stack.key_file.name + ".pub")
    log = await verify_log(stack.auditor_url, anchors=stack.anchors, public_keys=public_keys)
    judgement = judge(
        journal.requests,
        evidence.stored,
        evidence.gaps,
        # Without its own disk, the spool is full whenever the database is away for long.
        blocked=injector.blocked if stack.disk.can_fill else [whole],
        database_seconds=DATABASE_SECONDS,
    )
    report.faults, report.left_out = dict(injector.done), dict(injector.left_out)
    report.outcomes = dict(count_outcomes(journal.requests.values()))
    report.acknowledged, report.lost_refusals = judgement.acknowledged, judgement.lost
    report.entities = evidence.entities
    report.gap_rows, report.gap_events = len(evidence.gaps), sum(gap.count for gap in evidence.gaps)
    report.sealed_rows, report.blocks, report.leases, report.checkpoints = (
        log.rows,
        log.blocks,
        log.leases,
        log.checkpoints,
    )
    report.broken += [*injector.broken, *judgement.broken, *evidence.broken, *log.broken]
    if not 0 < report.peak_bytes <= BOUND_BYTES:
        report.broken.append(BrokenPromise("memory not bounded", f"the API took {report.peak_bytes >> 20} MB"))


@contextlib.asynccontextmanager
async def _in_background(work: Coroutine[object, object, None]) -> AsyncIterator[None]:
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
