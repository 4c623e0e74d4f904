"""The evaluator's limits adapt to its passes, and failures show in /health."""

import asyncio

import httpx
from starlette.applications import Starlette

from services.evaluator_iot.backlog import MOST_TENANTS, Backlog
from services.evaluator_iot.work_share import SMALLEST_SHARE, WorkShare
from services.shared.db import Pool
from services.shared.metrics import ProcessMetrics
from services.shared.server import Process, status_routes
from services.shared.settings import EvaluatorSettings
from services.shared.worker import Loop
from services.shared.worker.listener import Listener
from services.shared.worker.loop import run_loop
from services.shared.worker.metrics import WorkerMetrics
from tests.support.wait import until


def test_the_share_shrinks_after_slow_and_failed_passes_and_grows_again() -> None:
    """Half after a slow pass, a quarter after a failed one, double after a quick one, within bounds."""
    share = WorkShare(slow_seconds=1.0)
    assert (share.limit(5000), share.limit(1)) == (5000, 1)
    share.pass_ended(1.5)
    assert (share.share, share.limit(5000)) == (0.5, 2500)
    share.pass_failed()
    assert share.share == 0.125
    share.pass_ended(0.5)
    assert share.share == 0.125
    share.pass_ended(0.1)
    assert share.share == 0.25
    for _ in range(20):
        share.pass_failed()
    assert (share.share, share.limit(100)) == (SMALLEST_SHARE, 1)
    for _ in range(20):
        share.pass_ended(0.0)
    assert share.share == 1.0


def test_busy_tenants_take_turns_and_failing_ones_pause() -> None:
    """Each has one pass before any has a second; a failed one is skipped until its pause ends."""
    now = 0.0
    backlog = Backlog(slow_seconds=1.0, clock=lambda: now)
    backlog.add(["a", "b", "a", "c"])
    turns = []
    for _ in range(6):
        tenant = backlog.next()
        assert tenant is not None
        turns.append(tenant.tenant_id)
        backlog.pass_ended(tenant, seconds=0.1, has_more=True)
    assert turns == ["a", "b", "c"] * 2
    first = backlog.next()
    assert first is not None
    for _ in range(3):
        backlog.pass_failed(first)
    assert (first.tenant_id, backlog.failing(), first.share.share) == ("a", 1, 1 / 64)
    others = [backlog.next(), backlog.next(), backlog.next()]
    assert [tenant.tenant_id for tenant in others if tenant] == ["b", "c", "b"]
    for tenant in backlog:
        if tenant is not first:
            tenant.due_at = 1000.0
    assert backlog.next() is None
    now = 100.0
    assert backlog.next() is first
    backlog.pass_ended(first, seconds=0.1, has_more=False)
    assert (backlog.tenant_ids(), backlog.failing()) == (["c", "b"], 0)
    backlog.add(f"t{number}" for number in range(1000))
    assert len(backlog) == MOST_TENANTS


async def test_health_reports_passes_that_fail_again_and_again(app_pool: Pool) -> None:
    """After three failures in a row, /health is degraded and a gauge counts them; a good pass ends both."""
    process = Process(
        EvaluatorSettings(database_url="postgresql://unused"), ProcessMetrics("test"), app_pool, ready=True
    )
    metrics = WorkerMetrics(process.metrics, loops=["work"])
    stop, works = asyncio.Event(), asyncio.Event()
    process.faults.append(lambda: None)

    async def step(_pool: Pool) -> int:
        if not works.is_set():
            raise RuntimeError("out of memory")
        return 1

    def in_a_row() -> float:
        labels = {"service": "test", "operation": "work"}
        return process.metrics.registry.get_sample_value("pulse_worker_failed_passes_in_a_row", labels) or 0

    running = asyncio.create_task(
        run_loop(
            Loop("work", step, poll_seconds=0.01, full_batch=2),
            process,
            metrics=metrics,
            listener=Listener(process, metrics),
            stop=stop,
        )
    )
    transport = httpx.ASGITransport(app=Starlette(routes=status_routes(process)))
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        assert (await client.get("/health")).json()["status"] == "ok"
        await until(lambda: in_a_row() >= 3)
        answer = (await client.get("/health")).json()
        assert answer["status"] == "degraded"
        assert answer["reason"].startswith("work: ")
        assert answer["reason"].endswith(" passes in a row failed: RuntimeError")
        assert (await client.get("/readyz")).status_code == 200
        works.set()
        await until(lambda: in_a_row() == 0)
        assert (await client.get("/health")).json()["status"] == "ok"
        process.faults.append(lambda: "two tenants are not evaluated")
        assert (await client.get("/health")).json()["reason"] == "two tenants are not evaluated"
    stop.set()
    await running


def test_a_turn_of_the_backlog_has_as_many_passes_as_the_weight() -> None:
    backlog = Backlog(slow_seconds=1.0, clock=lambda: 0.0)
    backlog.add(["a", "b"])
    turns = []
    for _ in range(13):
        tenant = backlog.next()
        assert tenant is not None
        turns.append(tenant.tenant_id)
        backlog.pass_ended(tenant, seconds=0.1, has_more=True, weight=3 if tenant.tenant_id == "a" else 1)
    # The weight is known after the first pass.
    assert "".join(turns) == "ab" + "aaab" * 2 + "aaa"
