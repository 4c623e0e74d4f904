"""The loop that all workers share, run in the real process of a worker."""

import asyncio
import os
import re
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import pytest

from services.delivery_worker.worker import build as build_delivery
from services.dispatcher.dispatcher import build as build_dispatcher
from services.evaluator_iot.evaluator import build as build_evaluator
from services.ops_worker.main import build as build_ops
from services.shared.backoff import backoff_seconds
from services.shared.db import Pool
from services.shared.metrics import ProcessMetrics
from services.shared.server import Process
from services.shared.settings import DeliverySettings, DispatcherSettings, EvaluatorSettings, OpsSettings, Settings
from services.shared.worker import Loop
from services.shared.worker import loop as worker_loop
from services.shared.worker.listener import Listener
from services.shared.worker.loop import run_loop
from services.shared.worker.metrics import WorkerMetrics
from services.shared.worker.process import Build, entered
from tests.support import seed
from tests.support.migrator import ROOT
from tests.support.processes import free_port, ready_service, service
from tests.support.wait import until

EVALUATOR = "services.evaluator_iot"
DELIVERY = "services.delivery_worker"


async def open_alerts(conn: asyncpg.Connection) -> int:
    """Return the number of open alerts."""
    return int(await conn.fetchval("select count(*) from alerts where status = 'open'"))


async def test_a_notification_wakes_it_and_sigterm_ends_it(conn: asyncpg.Connection, app_url: str) -> None:
    """Work is found at once, not at the next poll; the stop is clean; the lines carry the reading's trace."""
    await seed.device(conn)
    await seed.rule(conn)
    async with ready_service(EVALUATOR, app_url, poll_seconds="3600") as evaluator:
        await seed.readings(conn, (0, 90), trace_id="e" * 32)
        await until(lambda: open_alerts(conn), seconds=10)
        assert await evaluator.stop() == 0
        opened = [line for line in evaluator.lines if line.get("message") == "alert opens"]
        assert [(line["trace_id"], line["service"]) for line in opened] == [("e" * 32, "evaluator_iot")]
        assert not [line for line in evaluator.lines if "not_json" in line or line["level"] in ("warning", "error")]


async def test_its_metrics_and_health(conn: asyncpg.Connection, app_url: str) -> None:
    """Every known series is there from the start; queue depth comes from the database."""
    await seed.device(conn)
    async with ready_service(EVALUATOR, app_url) as evaluator:
        text = (await evaluator.get("/metrics")).text
        assert (
            'pulse_processing_duration_seconds_bucket{le="0.005",operation="evaluate",service="evaluator_iot"}' in text
        )
        assert 'pulse_db_pool_size{service="evaluator_iot"}' in text
        assert 'pulse_db_pool_free{service="evaluator_iot"}' in text
        assert 'pulse_queue_depth{queue_name="inbox",service="evaluator_iot"} 0.0' in text
        async with conn.transaction():
            await conn.execute("select evaluator._lock_lanes('acme')")  # keeps the evaluator from taking it
            other = await asyncpg.connect(app_url)
            await seed.readings(other, (0, 20))
            await other.close()
            text = (await evaluator.get("/metrics")).text
            assert 'pulse_queue_depth{queue_name="inbox",service="evaluator_iot"} 1.0' in text
        health = (await evaluator.get("/health")).json()
        assert (health["status"], health["service"]) == ("ok", "evaluator_iot")
        assert {"passes", "rows", "errors"} <= health["counters"].keys()
        assert {queue["queue_name"] for queue in health["queues"]} == {"inbox", "pending_timers"}
        openmetrics = await evaluator.get("/metrics", accept="application/openmetrics-text; version=1.0.0")
        assert openmetrics.text.endswith("# EOF\n")


async def test_lost_connections_are_replaced(conn: asyncpg.Connection, app_url: str) -> None:
    """After every backend is terminated, the worker reconnects, listens again and continues."""
    await seed.device(conn)
    await seed.rule(conn)
    async with ready_service(EVALUATOR, app_url, poll_seconds="3600") as evaluator:
        await conn.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity where application_name like 'pulse-evaluator_iot%'"
            " and datname = current_database()"
        )

        async def listens() -> bool:
            return bool(
                await conn.fetchval(
                    "select exists (select from pg_stat_activity where datname = current_database()"
                    " and application_name = 'pulse-evaluator_iot-listen' and query ilike 'listen%')"
                )
            )

        await until(listens, seconds=20)
        await seed.readings(conn, (0, 90))
        await until(lambda: open_alerts(conn), seconds=20)
        assert await evaluator.stop() == 0


async def test_an_old_database_is_refused_in_one_line(empty_url: str) -> None:
    """A service states the missing revision's remedy and exits with 1."""
    async with service(EVALUATOR, empty_url) as evaluator:
        assert await asyncio.wait_for(evaluator.process.wait(), 30) == 1
    last = evaluator.lines[-1]
    assert "run alembic upgrade head" in last["message"]
    assert "exception" not in last


async def test_a_taken_port_is_said_in_one_line(app_url: str) -> None:
    """Of two services on one port, the second reports it and exits with an error."""
    async with ready_service(EVALUATOR, app_url) as first:
        async with service(EVALUATOR, app_url, port=str(first.port)) as second:
            assert await asyncio.wait_for(second.process.wait(), 30) == 1
        assert any("address already in use" in str(line.get("message")).lower() for line in second.lines)
        assert not [line for line in second.lines if "not_json" in line or "exception" in line]


async def test_bad_settings_are_named(app_url: str) -> None:
    """A bad value is named with its variable; no traceback."""
    async with service(EVALUATOR, app_url, evaluator_batch_readings="many") as evaluator:
        assert await asyncio.wait_for(evaluator.process.wait(), 30) == 2
    assert ["PULSE_EVALUATOR_BATCH_READINGS" in line["not_json"] for line in evaluator.lines] == [True]


async def test_it_waits_for_a_database_that_is_away() -> None:
    """Probes and metrics answer while the worker waits for the server, and SIGINT still ends it."""
    async with service(DELIVERY, f"postgresql://pulse_app@127.0.0.1:{free_port()}/pulse") as delivery:
        await until(lambda: [line for line in delivery.lines if line.get("failures", 0) >= 2], seconds=20)
        assert (await delivery.get("/livez")).status_code == 200
        assert (await delivery.get("/readyz")).status_code == 503
        shown = dict(line.rsplit(" ", 1) for line in (await delivery.get("/metrics")).text.splitlines())
        assert await delivery.stop(signal.SIGINT) == 0
    labels = [f'operation="{operation}",service="delivery_worker"' for operation in ("claim", "reap", "send", "finish")]
    zero = [f"pulse_processing_duration_seconds_count{{{label}}}" for label in labels]
    for name in ("passes_total", "failed_passes_total", "rows_per_pass_count"):
        zero += [f"pulse_worker_{name}{{{label}}}" for label in labels[:2]]
    zero += [f'pulse_{name}{{service="delivery_worker"}}' for name in ("db_pool_size", "db_pool_free")]
    zero += ['pulse_listener_restarts_total{service="delivery_worker"}']
    assert {series: shown.get(series) for series in zero} == dict.fromkeys(zero, "0.0")
    assert float(shown[f"pulse_worker_last_success_age_seconds{{{labels[0]}}}"]) > 0


async def test_the_metrics_count_what_the_passes_did(app_pool: Pool) -> None:
    """Every series exists from the start; counts are exact, idle polls hide nothing, and a failing step backs off."""
    process = Process(EvaluatorSettings(database_url="postgresql://unused"), ProcessMetrics("test"), app_pool)
    passes = dict.fromkeys(("good", "bad", "idle", "timer", "few"), 0)
    metrics = WorkerMetrics(process.metrics, loops=passes)
    listener = Listener(process, metrics)
    stop = asyncio.Event()

    def shown(name: str, **labels: str) -> dict[str, float | None]:
        value = process.metrics.registry.get_sample_value
        return {operation: value(name, {"service": "test", "operation": operation, **labels}) for operation in passes}

    at_start = [
        shown("pulse_worker_passes_total"),
        shown("pulse_worker_failed_passes_total"),
        shown("pulse_processing_duration_seconds_count"),
        *(shown("pulse_worker_rows_per_pass_bucket", le=str(float(le))) for le in (0, 1, 10, 100, 1000, 10000)),
    ]
    assert at_start == [dict.fromkeys(passes, 0.0)] * len(at_start)
    assert all((age or 0) > 0 for age in shown("pulse_worker_last_success_age_seconds").values())
    assert process.metrics.registry.get_sample_value("pulse_listener_restarts_total", {"service": "test"}) == 0

    def step(operation: str, rows: int) -> Callable[[Pool], Awaitable[int]]:
        async def run(_pool: Pool) -> int:
            passes[operation] += 1
            await asyncio.sleep(0)
            if operation == "bad":
                raise RuntimeError("always")
            if passes["good"] >= 50 and all(passes.values()):
                stop.set()
            return rows

        return run

    loops = [
        Loop("good", step("good", 7)),
        Loop("bad", step("bad", 0)),
        Loop("idle", step("idle", 0), poll_seconds=0.001),
        Loop("timer", step("timer", 0), poll_seconds=0.001, is_timer=True),
        Loop("few", step("few", 5), poll_seconds=0.001, full_batch=10),
    ]
    running = (run_loop(loop, process, metrics=metrics, listener=listener, stop=stop) for loop in loops)
    await asyncio.wait_for(asyncio.gather(*running), 30)
    assert process.counters["errors"] == passes["bad"] < 5
    assert passes["good"] >= 50 > passes["few"] > 0
    assert shown("pulse_worker_passes_total") == passes | {"bad": 0}
    assert shown("pulse_worker_failed_passes_total") == dict.fromkeys(passes, 0) | {"bad": passes["bad"]}
    assert shown("pulse_processing_duration_seconds_count") == passes | {"bad": 0, "idle": 0}
    assert shown("pulse_worker_rows_per_pass_bucket", le="0.0") == passes | {"bad": 0, "good": 0, "few": 0}
    assert shown("pulse_worker_rows_per_pass_bucket", le="10.0") == passes | {"bad": 0}
    assert shown("pulse_worker_rows_per_pass_sum")["good"] == 7 * passes["good"]
    ages = shown("pulse_worker_last_success_age_seconds")
    assert (ages["bad"] or 0) > max(age or 0 for operation, age in ages.items() if operation != "bad")


@asynccontextmanager
async def running(process: Process, loop: Loop) -> AsyncIterator[None]:
    """Run one loop until the end of the block."""
    metrics = WorkerMetrics(process.metrics, loops=[loop.operation])
    stop = asyncio.Event()
    task = asyncio.create_task(run_loop(loop, process, metrics=metrics, listener=Listener(process, metrics), stop=stop))
    try:
        yield
    finally:
        stop.set()
        await asyncio.wait_for(task, 30)


async def test_a_wake_up_during_a_pass_starts_one_more(app_pool: Pool) -> None:
    """The pass may have looked before the work came; after the next one the loop waits again."""
    process = Process(EvaluatorSettings(database_url="postgresql://unused"), ProcessMetrics("test"), app_pool)
    wake = asyncio.Event()
    passes = 0

    async def step(_pool: Pool) -> int:
        nonlocal passes
        passes += 1
        if passes == 1:
            wake.set()
        return 0

    async with running(process, Loop("look", step, poll_seconds=3600, wake=wake)):
        await until(lambda: passes >= 2)
        for _ in range(200):
            await asyncio.sleep(0)
        assert passes == 2
        wake.set()
        await until(lambda: passes >= 3)


async def test_failures_are_counted_in_a_row(app_pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pass that works ends the count, the growing pauses and the report in /health."""
    process = Process(EvaluatorSettings(database_url="postgresql://unused"), ProcessMetrics("test"), app_pool)
    pauses: list[int] = []
    reported: list[dict[str, str]] = []
    works = (False, False, False, True, False)

    def pause(failures: int) -> float:
        pauses.append(failures)
        return 0.0

    async def step(_pool: Pool) -> int:
        reported.append(dict(process.failing))
        if len(reported) <= len(works) and not works[len(reported) - 1]:
            raise RuntimeError("away")
        return int(len(reported) < len(works))

    monkeypatch.setattr(worker_loop, "backoff_seconds", pause)
    async with running(process, Loop("look", step, poll_seconds=3600)):
        await until(lambda: len(reported) == 6)
    assert pauses == [1, 2, 3, 1]
    failing = {"look": "3 passes in a row failed: RuntimeError"}
    assert reported == [{}, {}, {}, failing, {}, {}]


async def test_a_deadlock_costs_no_pass_and_a_demoted_server_its_connections(app_pool: Pool) -> None:
    """The server undid what it ended, so the pass is repeated; a pool of a standby would fail for ever."""
    process = Process(EvaluatorSettings(database_url="postgresql://unused"), ProcessMetrics("test"), app_pool)
    errors = [asyncpg.DeadlockDetectedError("undone"), None, asyncpg.ReadOnlySQLTransactionError("standby"), None]
    backends: list[int] = []

    async def step(pool: Pool) -> int:
        backends.append(await pool.fetchval("select pg_backend_pid()"))
        error = errors.pop(0) if errors else None
        if error is not None:
            raise error
        return len(errors)

    async with running(process, Loop("look", step, poll_seconds=3600)):
        await until(lambda: len(backends) == 4)
    assert process.counters["errors"] == 1
    assert backends[0] == backends[1] == backends[2] != backends[3]


def test_backoff_grows_is_bounded_and_jittered() -> None:
    """Never 0, never over 30 s, and different for two copies."""
    assert all(0 < backoff_seconds(failures) <= 30 for failures in range(1, 2000))
    assert 0.05 <= backoff_seconds(1, first_seconds=0.1) <= 0.1
    assert len({backoff_seconds(5) for _ in range(20)}) > 1


@pytest.mark.parametrize("as_context", [True, False])
async def test_build_may_be_a_list_or_a_context(app_pool: Pool, as_context: bool) -> None:
    """Both forms of build run their loops."""
    ran = asyncio.Event()

    async def step(_pool: Pool) -> int:
        ran.set()
        return 0

    @asynccontextmanager
    async def opened() -> AsyncIterator[Sequence[Loop]]:
        yield [Loop("step", step)]

    async with entered(opened() if as_context else [Loop("step", step)]) as loops:
        assert await loops[0].step(app_pool) == 0
    assert ran.is_set()


@pytest.mark.slow
async def test_a_pass_that_waits_for_a_lock_does_not_hold_up_the_stop(conn: asyncpg.Connection, app_url: str) -> None:
    """SIGTERM ends the process within 10 s, whatever lock its pass waits for; the pass is rolled back as a whole."""
    await seed.device(conn)
    await seed.rule(conn)
    async with ready_service(EVALUATOR, app_url) as evaluator:
        async with conn.transaction():
            await conn.execute("lock table alerts in access exclusive mode")
            other = await asyncpg.connect(app_url)
            await seed.readings(other, (0, 90))
            await other.close()

            async def waits() -> bool:
                query = "select exists (select from pg_locks where not granted and relation = 'alerts'::regclass)"
                return bool(await conn.fetchval(query))

            await until(waits)
            assert await asyncio.wait_for(evaluator.stop(), 10) == 0
        assert await conn.fetchval("select count(*) from evaluator.inbox") == 1


async def test_a_hung_server_leaves_the_probes_answering(conn: asyncpg.Connection, app_url: str) -> None:
    """While backends are stopped, /metrics, /readyz and /health answer within seconds."""
    # A full pool opens no further connection, which would answer.
    full = {"pool_min_size": "2", "pool_max_size": "2"}
    async with ready_service(EVALUATOR, app_url, poll_seconds="3600", **full) as evaluator:
        backends = await conn.fetch(
            "select pid from pg_stat_activity where application_name like 'pulse-evaluator_iot%'"
            " and datname = current_database()"
        )
        pids = [row["pid"] for row in backends]
        try:
            for pid in pids:
                os.kill(pid, signal.SIGSTOP)
            paths = ("/metrics", "/readyz", "/health", "/livez")
            answers = await asyncio.wait_for(asyncio.gather(*(evaluator.get(path) for path in paths)), 4)
            assert [answer.status_code for answer in answers] == [200, 503, 200, 200]
        finally:
            for pid in pids:
                os.kill(pid, signal.SIGCONT)


@pytest.mark.parametrize("variable", ["database_url", "listen_url"])
async def test_a_database_that_is_not_there(conn: asyncpg.Connection, app_url: str, variable: str) -> None:
    """A wrong PULSE_DATABASE_URL is one line and exit 1; with a wrong PULSE_LISTEN_URL the worker logs it and polls."""
    missing = re.sub(r"/[^/?]+(?=\?|$)", "/no_such_database", app_url, count=1)
    if variable == "database_url":
        async with service(EVALUATOR, missing) as evaluator:
            assert await asyncio.wait_for(evaluator.process.wait(), 30) == 1
        assert "no_such_database" in evaluator.lines[-1]["message"]
        assert "exception" not in evaluator.lines[-1]
        return
    await seed.device(conn)
    await seed.rule(conn)
    async with ready_service(EVALUATOR, app_url, listen_url=missing, poll_seconds="3600") as evaluator:
        await seed.readings(conn, (0, 90))
        await until(lambda: open_alerts(conn))
        assert (
            'pulse_listener_state{service="evaluator_iot",state="deaf"} 1.0' in (await evaluator.get("/metrics")).text
        )
        assert await evaluator.stop() == 0
    assert len([line for line in evaluator.lines if "listener is deaf" in str(line.get("message"))]) == 1


async def test_the_page_lists_the_loops_of_each_worker(tmp_path: Path) -> None:
    """docs/metrics.md names the operations of the table that each worker's build returns."""
    page = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    url = "postgresql://unused"
    ops = OpsSettings(database_url=url, audit_key_file=tmp_path / "signing.key", audit_anchor_dir=tmp_path)
    workers: list[tuple[Settings, Build]] = [
        (EvaluatorSettings(database_url=url), build_evaluator),
        (DispatcherSettings(database_url=url), build_dispatcher),
        (DeliverySettings(database_url=url), build_delivery),
        (ops, build_ops),
    ]
    for settings, build in workers:
        row = re.search(rf"^\| {settings.service} \| (`.*`) \|$", page, re.MULTILINE)
        assert row is not None, f"docs/metrics.md has no row for the loops of {settings.service}"
        async with entered(build(Process(settings, ProcessMetrics(settings.service)))) as loops:
            listed, made = set(re.findall(r"`(\w+)`", row[1])), {loop.operation for loop in loops}
        assert not made - listed, f"the row of {settings.service} in docs/metrics.md lacks {sorted(made - listed)}"
        assert not listed - made, f"{settings.service} has no loop {sorted(listed - made)}, which docs/metrics.md names"
        assert len(made) == len(loops)
