"""Several workers behind one port: their metrics are those of one process, whoever is asked and whoever dies."""

import asyncio
import itertools
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import orjson
import pytest
from fastapi.routing import APIRoute
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, values
from prometheus_client.core import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics

from services.shared.db import Pool
from services.shared.metrics import ProcessMetrics
from services.shared.server import Process, readiness_fault
from services.shared.settings import UiSettings
from services.ui_iot.app import ROUTERS
from services.ui_iot.middleware.http_meter import KNOWN_METHODS, OTHER
from services.ui_iot.middleware.path_template import UNMATCHED
from services.ui_iot.workers.merge import fold
from services.ui_iot.workers.registry import SharedRegistry
from services.ui_iot.workers.slots import Slots
from tests.support import seed
from tests.support.api_client import EC, ISSUER, RSA, token
from tests.support.processes import ROOT, Running, free_port, ready_service, service
from tests.support.wait import until
from tests.support.worker_storm import WORKERS, lives

# One thousand is the promise; a few show the same.
RESTARTS = os.environ.get("PULSE_TEST_WORKER_RESTARTS", "30")
TOKEN = "correct-horse-battery-staple"
OPENMETRICS = "application/openmetrics-text; version=1.0.0"


def storm(restarts: str, end: str) -> Any:
    """The report of tests.support.worker_storm."""
    command = [sys.executable, "-m", "tests.support.worker_storm", restarts, end]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, timeout=30 + int(restarts), check=False)
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    return orjson.loads(done.stdout)


def families(text: str) -> dict[str, Metric]:
    """Families of an OpenMetrics text, read by the reference parser."""
    return {family.name: family for family in parse_openmetrics(text)}  # type: ignore[no-untyped-call]


def test_kill_9_loses_nothing_and_leaves_nothing() -> None:
    """Sums and exemplars equal the workers' ledgers, no counter goes backwards, and nothing grows."""
    report = storm(RESTARTS, "TERM")
    assert (report["status"], report["backwards"]) == (0, [])
    assert report["looks"] >= int(RESTARTS)
    alive, dead, ledger = report["alive"], report["dead"], report["ledger"]
    for number, wrote in enumerate(ledger[1:], start=1):
        assert wrote["done"] == wrote["begun"] > 0
        for picture in (alive, dead):
            assert picture[f"storm_writes_total {number}"] == wrote["done"]
            assert picture[f"storm_seconds_count {number}"] == wrote["done"]
            assert picture[f"storm_seconds_bucket {number} +Inf"] == wrote["done"]
            assert picture[f"storm_seconds_sum {number}"] * 4 == wrote["quarters"]
            assert picture[f"storm_collected_total {number}"] == wrote["collected"]
    # Of each kill from outside at most the one write in hand may be counted in part.
    harried, killed = ledger[0], report["killed"]
    for name in ("storm_writes_total 0", "storm_seconds_count 0"):
        assert harried["done"] <= dead[name] <= harried["begun"] <= harried["done"] + killed
    assert harried["quarters"] <= dead["storm_seconds_sum 0"] * 4 <= harried["quarters"] + killed * 64
    # The living are added up, or as the gauge says; the dead leave no gauge.
    gauges = {"storm_alive": WORKERS, "storm_newest": WORKERS - 1, "storm_function": 2 * WORKERS}
    assert {name: alive[name] for name in gauges} == gauges
    assert not [name for name in dead if name in {*gauges, "storm_sometimes"}]
    # Descriptors and mappings of the parent, and what the dead have left, once each worker has died.
    assert len({tuple(shape) for shape in report["shapes"][-2:]}) == 1, report["shapes"]
    assert len({tuple(shape[:2]) for shape in report["shapes"]}) == 1, report["shapes"]
    samples = families(report["text"])["storm_seconds"].samples
    for number, wrote in enumerate(ledger[1:], start=1):
        buckets = [s for s in samples if s.name == "storm_seconds_bucket" and s.labels["worker"] == str(number)]
        assert [bucket.labels["le"] for bucket in buckets] == ["0.3", "0.7", "2.0", "+Inf"]
        assert (
            max(int(bucket.exemplar.labels["trace_id"], 16) for bucket in buckets if bucket.exemplar) == wrote["last"]
        )


def test_workers_die_with_a_parent_that_is_killed() -> None:
    """The storm's report comes only when none of them lives."""
    report = storm("0", "KILL")
    assert report["status"] == signal.SIGKILL
    assert report["alive"]["storm_alive"] == WORKERS


def test_the_library_asks_for_its_values_where_we_plug_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of prometheus_client this is not documented: when it changes, several workers need another way."""
    asked: list[tuple[Any, ...]] = []

    class Value(values.MutexValue):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            asked.append((*args, kwargs))
            super().__init__(*args, **kwargs)  # type: ignore[no-untyped-call]

    monkeypatch.setattr(values, "ValueClass", Value)
    registry = CollectorRegistry()
    Counter("c", "help", ["l"], registry=registry).labels("v").inc(exemplar={"trace_id": "1"})
    Gauge("g", "help", registry=registry, multiprocess_mode="max").set(2)
    Histogram("h", "help", ["l"], registry=registry, buckets=(1,)).labels("v").observe(1, {"trace_id": "2"})
    assert asked == [
        ("counter", "c", "c_total", ("l",), ("v",), "help", {}),
        ("gauge", "g", "g", (), (), "help", {"multiprocess_mode": "max"}),
        ("histogram", "h", "h_sum", ("l",), ("v",), "help", {}),
        ("histogram", "h", "h_bucket", ("l", "le"), ("v", "1.0"), "help", {}),
        ("histogram", "h", "h_bucket", ("l", "le"), ("v", "+Inf"), "help", {}),
    ]


def test_a_slot_has_room_for_all_that_a_client_can_make(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else whoever tries every method at every path would keep later failures from being counted."""
    monkeypatch.setattr(values, "ValueClass", values.ValueClass)  # put back what the registry replaces
    slots = Slots(1)
    metrics = ProcessMetrics("ui_iot", SharedRegistry(slots, 0))
    templates = {route.path_format for router in ROUTERS for route in router.routes if isinstance(route, APIRoute)}
    # How a request ends before its route is asked, or for want of one.
    refusals = (401, 404, 405, 413, 415, 429, 499, 500, 503)
    for labels in itertools.product((*KNOWN_METHODS, OTHER), (*templates, UNMATCHED), refusals):
        metrics.http_request_duration.labels(*labels)


def children(running: Running) -> list[int]:
    """The workers of a parent."""
    pid = running.process.pid
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.slow
async def test_two_workers_are_measured_as_one(conn: asyncpg.Connection, app_url: str, tmp_path: Path) -> None:
    """Whoever answers the scrape, it equals what the client saw, also after kill -9 of a worker."""
    await seed.device(conn)
    keys = tmp_path / "jwks.json"
    keys.write_bytes(orjson.dumps({"keys": [EC.public(), RSA.public()]}))
    port = free_port()
    settings = {"ui_workers": "2", "metrics_port": str(port), "metrics_token": TOKEN, "jwt_issuer": ISSUER}
    # Each request has a connection of its own, which any worker may take.
    async with (
        ready_service("services.ui_iot", app_url, jwks_file=str(keys), **settings) as running,
        httpx.AsyncClient(
            base_url=running.url, limits=httpx.Limits(max_keepalive_connections=0), trust_env=False
        ) as client,
    ):
        good = {"authorization": f"Bearer {token()}"}
        saw = {"/api/v1/devices 200": 0, "__unmatched__ 404": 0, "__unmatched__ 401": 0}

        async def send(count: int) -> None:
            requests = [
                client.get(path, headers=headers)
                for path, headers in (("/api/v1/devices", good), ("/nowhere", good), ("/nowhere", {}))
                for _ in range(count)
            ]
            for answer in await asyncio.gather(*requests):
                found = "/api/v1/devices" if answer.url.path == "/api/v1/devices" else "__unmatched__"
                saw[f"{found} {answer.status_code}"] += 1

        async def scrape() -> dict[str, Metric]:
            headers = {"authorization": f"Bearer {TOKEN}", "accept": OPENMETRICS}
            answer = await client.get(f"http://127.0.0.1:{port}/metrics", headers=headers)
            assert answer.status_code == 200
            return families(answer.text)

        async def check(*, scrapes: int = 4) -> None:
            for _ in range(scrapes):  # either may answer
                found = await scrape()
                samples = found["pulse_http_request_duration_seconds"].samples
                counts = {
                    f"{sample.labels['path_template']} {sample.labels['status_code']}": sample.value
                    for sample in samples
                    if sample.name.endswith("_count")
                }
                assert counts == saw
                assert total(found, "pulse_http_requests_in_progress") == 0
                assert total(found, "pulse_auth_failures") == saw["__unmatched__ 401"]
                shown = [sample.exemplar for sample in samples if sample.exemplar is not None]
                assert shown or not sum(saw.values())
                for exemplar in shown:
                    ident = exemplar.labels["trace_id"]
                    assert await conn.fetchval("select exists (select from audit_log where trace_id = $1)", ident)

        async def both_answer() -> bool:
            answers = await asyncio.gather(*(client.get("/health") for _ in range(8)))
            started.update(answer.json()["started_at"] for answer in answers)
            return len(started) >= 2

        started: set[str] = set()
        await until(both_answer)
        await send(10)
        await check()
        began = total(await scrape(), "process_start_time_seconds")
        before = children(running)
        os.kill(before[0], signal.SIGKILL)

        def replaced() -> list[int]:
            now = children(running)
            return now if len(now) == 2 and before[0] not in now else []

        after = await until(replaced)
        started.clear()
        await until(both_answer)
        # One that hangs is shown with what it counted all the same.
        os.kill(after[0], signal.SIGSTOP)
        await check(scrapes=1)
        os.kill(after[0], signal.SIGCONT)
        await check()
        await send(5)
        await check()
        found = await scrape()
        assert total(found, "pulse_ui_worker_restarts") == 1
        assert total(found, "process_start_time_seconds") == began  # the parent's
        assert total(found, "pulse_db_pool_size") >= 2
        # The parent and the two workers, each with its own interpreter.
        assert total(found, "process_resident_memory_bytes") > 3 * 10_000_000
        assert [(await client.get(path, headers=good)).status_code for path in ("/metrics", "/readyz")] == [404, 200]
        assert await running.stop() == 0
        assert not [pid for pid in (*before, *after) if lives(pid)]
    assert not [line for line in running.lines if "not_json" in line or TOKEN in str(line)]
    assert await conn.fetchval("select count(*) from audit_log where event_type = 'auth.login_failure'") == 15


async def test_all_workers_are_waited_for_once(app_pool: Pool, app_url: str) -> None:
    """Not ready while one never was; later the others go on while one starts anew."""
    slots = Slots(2)
    settings = UiSettings(database_url=app_url)
    process = Process(settings=settings, metrics=ProcessMetrics("ui_iot"), pool=app_pool, others=slots.fault)
    assert await readiness_fault(process) == "starting"
    process.ready = True
    assert await readiness_fault(process) == "starting: 0 of 2 workers are ready"
    slots.note_ready(1)
    assert await readiness_fault(process) == "starting: 1 of 2 workers are ready"
    slots.note_ready(0)
    assert await readiness_fault(process) is None
    fold(slots, 1)
    assert await readiness_fault(process) is None


@pytest.mark.slow
async def test_workers_that_cannot_start_end_with_the_parent(empty_url: str) -> None:
    """As one process does: with one line of the reason and status 1, not in a loop."""
    async with service("services.ui_iot", empty_url, ui_workers="2", port=str(free_port())) as running:
        assert await asyncio.wait_for(running.process.wait(), 60) == 1
        assert any("run alembic upgrade head" in line["message"] for line in running.lines)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        async with service("services.ui_iot", empty_url, ui_workers="2", port=str(taken.getsockname()[1])) as running:
            assert await asyncio.wait_for(running.process.wait(), 60) == 1
        [line] = running.lines
        assert "cannot start: cannot listen on 127.0.0.1" in line["message"]


def total(found: dict[str, Metric], name: str) -> float:
    """Sum of a family's samples, but for when they began."""
    return sum(sample.value for sample in found[name].samples if not sample.name.endswith("_created"))
