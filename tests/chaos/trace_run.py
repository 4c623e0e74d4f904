"""Run of `pulse chaos traces`: traffic and kills, then a check of every trace."""

import asyncio
import contextlib
import random
import signal
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import asyncpg
import orjson

from services.shared.server import serve
from tests.chaos.judgement import BrokenPromise
from tests.chaos.trace_stack import API, TENANT, VICTIMS, TraceStack, open_trace_stack
from tests.chaos.trace_traffic import SENDERS, Sink, TraceTraffic
from tests.support.processes import free_ports

TRACES_A_KILL = 250
FEWEST_KILLS = 2
QUIET_SECONDS = 120.0

_WAITING = """
select (select count(*) from evaluator.inbox)
  + (select count(*) from public.alert_events where dispatched_at is null)
  + (select count(*) from public.notification_jobs where finished_at is null)
"""

_STEPS = """
select span_id, parent_span_id, kind, entity_id, details ->> 'state' as state from api.trace_timeline($1)
"""

Say = Callable[[str], None]


@dataclass(slots=True)
class TraceReport:
    """Numbers and findings of a run."""

    seed: int
    traces: int
    repeats: int = 0
    kills: Mapping[str, int] = field(default_factory=dict)
    webhooks: Mapping[int, int] = field(default_factory=dict)
    rows: Mapping[str, int] = field(default_factory=dict)
    orphans: int = 0
    broken: list[BrokenPromise] = field(default_factory=list)

    def write(self, file: Path) -> None:
        """Write it as JSON."""
        options = orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS
        file.write_bytes(orjson.dumps(asdict(self), option=options))


async def run_traces(root: Path, *, count: int, seed: int, say: Say) -> TraceReport:
    """Carry out a run. SIGTERM and SIGINT end it early. root: a directory that the server's user can enter."""
    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    sink = Sink(random.Random(f"{seed}/sink"))
    sink_port = free_ports(["sink"])["sink"]
    # Enough readings per device that most readings open or close an alert.
    devices = SENDERS * max(1, min(count // (8 * SENDERS), 25))
    say("starting a server and five services")
    async with (
        _served(sink, sink_port),
        open_trace_stack(root, devices=devices, sink_url=f"http://127.0.0.1:{sink_port}") as stack,
    ):
        say(f"{count} traces over {devices} devices, seed {seed}")
        traffic, kills = await _hurt(stack, count, devices, seed, say)
        report = TraceReport(seed, len(traffic.acknowledged), traffic.repeats, dict(kills))
        say("all are acknowledged: waiting until all work is done")
        await stack.until_ready()
        connection = await stack.connect()
        try:
            await _until_quiet(connection, report)
            await stack.supervisor.stop([API])  # the API has written the rest of its audit events
            say("checking every trace")
            await _judge(connection, traffic, sink, report)
        finally:
            await connection.close()
    return report


async def _hurt(stack: TraceStack, count: int, devices: int, seed: int, say: Say) -> tuple[TraceTraffic, Counter[str]]:
    """Send everything, with a SIGKILL at each of several points. The same seed kills the same services."""
    kills: Counter[str] = Counter()
    victims = _deal(random.Random(f"{seed}/kills"))
    planned = max(FEWEST_KILLS, count // TRACES_A_KILL)
    points = {count * number // (planned + 1) for number in range(1, planned + 1)}
    async with asyncio.TaskGroup() as tasks:

        def hurt(acknowledged: int) -> None:
            if acknowledged in points:
                victim = next(victims)
                kills[victim] += 1
                tasks.create_task(stack.kill(victim))
            if acknowledged % max(1, count // 10) == 0:
                say(f"{acknowledged} acknowledged, {kills.total()} kills")

        token = stack.key.token(tenant_id=TENANT, role="operator")
        traffic = TraceTraffic(stack.api_url, token, count, devices, seed, hurt)
        await traffic.run()
    return traffic, kills


def _deal(randomness: random.Random) -> Iterator[str]:
    while True:
        yield from randomness.sample(VICTIMS, len(VICTIMS))


async def _until_quiet(connection: asyncpg.Connection, report: TraceReport) -> None:
    deadline = asyncio.get_running_loop().time() + QUIET_SECONDS
    while waiting := await connection.fetchval(_WAITING):
        if asyncio.get_running_loop().time() > deadline:
            report.broken.append(BrokenPromise("work was left", f"{waiting} rows are waiting"))
            return
        await asyncio.sleep(0.1)


async def _judge(connection: asyncpg.Connection, traffic: TraceTraffic, sink: Sink, report: TraceReport) -> None:
    orphans = await connection.fetch("select fault, trace_id, entity_type, entity_id from trace.orphans")
    report.orphans = len(orphans)
    report.broken += [
        BrokenPromise(row["fault"], f"{row['entity_type']} {row['entity_id']} of trace {row['trace_id']}")
        for row in orphans
    ]
    report.broken += [BrokenPromise("webhook without its trace", webhook_id) for webhook_id in sink.untraced]
    rows: Counter[str] = Counter()
    taken = Counter(sink.taken.values())
    await connection.execute("select set_config('pulse.tenant_id', $1, false)", TENANT)
    for trace_id in traffic.acknowledged:
        steps = await connection.fetch(_STEPS, trace_id)
        rows.update(step["kind"] for step in steps)
        faults = find_faults(steps, taken.pop(trace_id, 0), sink.spans[trace_id])
        report.broken += [BrokenPromise(fault, f"trace {trace_id}") for fault in faults]
    report.broken += [BrokenPromise("webhook of an unknown trace", trace_id) for trace_id in taken]
    report.rows, report.webhooks = dict(rows), dict(sink.answers)


def find_faults(steps: Sequence[Mapping[str, Any]], taken: int, spans: set[str]) -> Iterator[str]:
    """Yield the faults of an answered trace. taken: its webhooks that the receiver took; spans: all of its spans."""
    kinds = {step["span_id"]: step["kind"] for step in steps}
    counted = Counter(kinds.values())
    for kind in ("request", "reading"):
        if not counted[kind]:
            yield f"acknowledged trace without a {kind}"
    if len(kinds) != len(steps):
        yield "two steps with one span id"
    for step in steps:
        parent = step["parent_span_id"]
        if parent is not None and parent not in kinds:
            yield "step whose parent is missing"
        if parent is None and step["kind"] != "request":
            yield f"{step['kind']} that hangs from nothing"
    delivered = sum(step["kind"] == "job" and step["state"] == "delivered" for step in steps)
    if delivered != counted["job"]:
        yield "notification that was not delivered"
    if not spans <= {span_id for span_id, kind in kinds.items() if kind == "attempt"}:
        yield "webhook whose span is no attempt of its trace"
    # A worker that died before it recorded the response repeats the webhook with the same id, which counts once.
    if delivered != taken:
        yield "receiver and trace do not agree on what was delivered"


@contextlib.asynccontextmanager
async def _served(sink: Sink, port: int) -> AsyncIterator[None]:
    stop = asyncio.Event()
    serving = asyncio.create_task(serve(sink.app(), host="127.0.0.1", port=port, stop=stop))
    try:
        yield
    finally:
        stop.set()
        await serving
