"""Rules and dashboards against the six processes and a real Prometheus: all names exist, and faults raise alerts."""

import asyncio
import os
import re
import signal
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import orjson
import pytest
import yaml
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from services.local.stack.roster import SERVICES
from tests.support.migrator import ROOT
from tests.support.processes import Running, free_ports, service
from tests.support.prometheus_rules import (
    PROMETHEUS,
    Expression,
    faults_of,
    panel_expressions,
    read,
    rule_expressions,
    rules,
    with_recorded,
)
from tests.support.promql import TARGET, Parser
from tests.support.scrape import OPENMETRICS
from tests.support.wait import until

RoleUrl = Callable[[str], str]
Known = Mapping[str, frozenset[str]]
Shown = Mapping[str, Mapping[str, set[str]]]
"""Values by metric and label."""
TOKEN = "only-for-tests-of-metrics"
RUNBOOKS = ROOT / "docs" / "runbooks.md"
ROLES = {"ops_worker": "pulse_ops", "exporter": "pulse_exporter"}


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_all_names_exist_and_faults_raise_alerts(
    conn: asyncpg.Connection, role_url: RoleUrl, require: Callable[[str], str], tmp_path: Path
) -> None:
    """Names and labels are checked first, because that part does not need Prometheus."""
    async with AsyncExitStack() as stack:
        processes = await start(stack, role_url)
        refused = await processes["ui_iot"].get("/api/v1/alerts")
        assert refused.status_code == 401
        # A route becomes a label value with its first request.
        assert (await processes["ui_iot"].get("/api/v1/audit/tail")).status_code == 401
        shown = await scrape(processes)
        check_names(await labels_of(conn, shown))
        check_values(shown)
        await check_runbooks(conn)
        async with prometheus(require("prometheus"), tmp_path, processes) as api:
            await until(lambda: all_is_well(api), seconds=60)
            await until(lambda: has_exemplar(api, refused.headers["x-trace-id"]))
            await check_alerts_of_a_broken_trail(conn, api)
            await check_alert_of_a_hanging_process(processes["evaluator_iot"], api)


async def start(stack: AsyncExitStack, role_url: RoleUrl) -> dict[str, Running]:
    """Start all six at once."""
    ports = free_ports(list(SERVICES))
    targets = orjson.dumps({name: f"http://127.0.0.1:{port}" for name, port in ports.items()}).decode()
    running = await asyncio.gather(
        *(
            stack.enter_async_context(
                service(
                    module,
                    role_url(ROLES.get(name, "pulse_app")),
                    port=str(ports[name]),
                    health_targets=targets,
                    health_seconds="1",
                    metrics_token=TOKEN,
                )
            )
            for name, module in SERVICES.items()
        )
    )
    # Six processes import their libraries at once, and health requests would slow them down.
    await until(lambda: all(has_started(process) for process in running), seconds=60)
    for process in running:
        await until(process.is_ready, seconds=30)
    return dict(zip(SERVICES, running, strict=True))


def has_started(process: Running) -> bool:
    """Return whether the process has logged its start."""
    assert process.process.returncode is None, process.lines[-3:]
    return any(line.get("message") == "started" for line in process.lines)


async def scrape(processes: Mapping[str, Running]) -> Shown:
    """Return every series of a process with the values of its labels."""
    found: dict[str, dict[str, set[str]]] = {}
    for name, process in processes.items():
        answer = await process.get("/metrics", accept=OPENMETRICS, authorization=f"Bearer {TOKEN}")
        for family in text_string_to_metric_families(answer.text):  # type: ignore[no-untyped-call]
            for sample in family.samples:
                labels = found.setdefault(sample.name, {"job": set(), "instance": set()})
                for label, value in {"job": f"pulse_{name}", **sample.labels}.items():
                    labels.setdefault(label, set()).add(value)
    return found


async def labels_of(conn: asyncpg.Connection, shown: Shown) -> dict[str, frozenset[str]]:
    """Return the labels of each metric, including those without a row."""
    found = {metric: frozenset(labels) for metric, labels in shown.items()}
    columns = await conn.fetch(
        "select c.relname::text as view, array_agg(a.attname::text) as columns"
        " from pg_class c join pg_attribute a on a.attrelid = c.oid and a.attnum > 0"
        " where c.relnamespace = 'metrics'::regnamespace and c.relkind = 'v' group by 1"
    )
    for view, names in columns:
        suffix = "_bucket" if "le" in names else ""
        found.setdefault(f"pulse_{view}{suffix}", TARGET | (frozenset(names) - {"value", "sum"}))
    return found


def check_names(shown: Known) -> None:
    """Check that the names in every rule and panel exist, and that each wrong name is found."""
    known, faults = with_recorded(shown)
    expressions = [*rule_expressions(), *panel_expressions()]
    assert [*faults, *(fault for expression in expressions for fault in faults_of(expression, known))] == []
    for expression in expressions:
        parsed = Parser(expression.text, known)
        for name in {*parsed.metrics, *parsed.named_labels}:
            mutant = re.sub(rf"\b{name}\b", f"{name}_x", expression.text)
            assert mutant != expression.text
            assert faults_of(Expression("mutant", mutant, expression.shown), known) != [], mutant


def check_values(shown: Shown) -> None:
    """Check that each matcher names an existing label value. Status codes appear with their requests."""
    everywhere: dict[str, set[str]] = {"job": {f"pulse_{name}" for name in SERVICES}}
    for labels in shown.values():
        for label, values in labels.items():
            everywhere.setdefault(label, set()).update(values)
    recorded = (Expression(rule["record"], rule["expr"], frozenset()) for rule in rules("recording"))
    missing = [
        f"{expression.where}: no {label} of {metric} is {part}"
        for expression in (*recorded, *rule_expressions(), *panel_expressions())
        for metric, label, pattern in Parser(expression.text, {}).matchers
        if metric != "ALERTS" and label != "status_code"
        for part in pattern.split("|")
        if "$" not in part
        if not any(re.fullmatch(part, seen) for seen in shown.get(metric, everywhere).get(label, ()))
    ]
    assert missing == []


async def check_runbooks(conn: asyncpg.Connection) -> None:
    """Run every query of the runbooks as the tables' owner, like `./pulse psql`."""
    queries = re.findall(r"^```sql\n(.*?)^```$", RUNBOOKS.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert len(queries) > 20
    await conn.execute("set role pulse_owner")
    for query in queries:
        await conn.fetch(query)
    await conn.execute("reset role")


@asynccontextmanager
async def prometheus(program: str, place: Path, processes: Mapping[str, Running]) -> AsyncIterator[httpx.AsyncClient]:
    """Yield a Prometheus with deploy's configuration, but other targets, token, intervals and one other `for`."""
    config = read(PROMETHEUS / "prometheus.yml")
    config["global"] = {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}
    for job in config["scrape_configs"]:
        target = processes[job["job_name"].removeprefix("pulse_")]
        job["authorization"] = {"type": "Bearer", "credentials": TOKEN}
        job["static_configs"] = [{"targets": [f"127.0.0.1:{target.port}"]}]
    (place / "rules").mkdir()
    for path in (PROMETHEUS / "rules").iterdir():
        content = read(path)
        for group in content["groups"]:
            for rule in group["rules"]:
                if rule.get("alert") == "PulseServiceDown":
                    rule["for"] = "0s"
        (place / "rules" / path.name).write_text(yaml.safe_dump(content))
    (place / "prometheus.yml").write_text(yaml.safe_dump(config))
    port = free_ports(["prometheus"])["prometheus"]
    process = await asyncio.create_subprocess_exec(
        program,
        f"--config.file={place / 'prometheus.yml'}",
        f"--storage.tsdb.path={place / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--enable-feature=exemplar-storage",
        "--log.level=error",
        stdin=asyncio.subprocess.DEVNULL,
    )
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}/api/v1/", trust_env=False) as api:
            yield api
    finally:
        process.terminate()
        await asyncio.wait_for(process.wait(), 10)


async def ask(api: httpx.AsyncClient, path: str) -> dict[str, Any]:
    """Return the answer of Prometheus, or nothing while it starts."""
    try:
        answer = await api.get(path)
    except httpx.TransportError:
        return {}
    return answer.json()["data"] if answer.status_code == 200 else {}


async def firing(api: httpx.AsyncClient) -> set[str]:
    """Return the names and jobs of the firing alerts."""
    found = (await ask(api, "alerts"))["alerts"]
    return {f"{a['labels']['alertname']} {a['labels'].get('job', '')}".strip() for a in found if a["state"] == "firing"}


async def all_is_well(api: httpx.AsyncClient) -> bool:
    """Return whether all six targets are up, all rules were evaluated without error, and no alert fires."""
    targets = (await ask(api, "targets?state=active")).get("activeTargets", [])
    groups = (await ask(api, "rules")).get("groups", [])
    rules = [rule for group in groups for rule in group["rules"]]
    assert not any(rule["health"] == "err" for rule in rules), [rule for rule in rules if rule["health"] == "err"]
    up = [target for target in targets if target["health"] == "up"]
    evaluated = bool(rules) and all(rule["health"] == "ok" for rule in rules)
    return len(up) == len(SERVICES) and evaluated and not await firing(api)


async def has_exemplar(api: httpx.AsyncClient, trace_id: str) -> bool:
    """Return whether the panels show an exemplar with this trace id."""
    query = {"query": "pulse_http_request_duration_seconds_bucket", "start": "0", "end": str(2**31)}
    answer = (await api.get("query_exemplars", params=query)).json()
    found = [exemplar for series in answer.get("data") or () for exemplar in series["exemplars"]]
    return any(exemplar["labels"]["trace_id"] == trace_id for exemplar in found)


async def check_alerts_of_a_broken_trail(conn: asyncpg.Connection, api: httpx.AsyncClient) -> None:
    """Let two alerts fire and end, one by restoring the trigger and one by closing the alert."""
    await conn.execute("alter table public.alert_rules disable trigger user; select audit.report_broken_log('a test')")
    await until(lambda: fires(api, "PulseAuditLogBroken", "PulseAuditUnguarded"), seconds=60)
    await conn.execute(
        "alter table public.alert_rules enable trigger user;"
        "select evaluator.close_alert_by_fingerprint('system', 'audit:log', 'resolved', repeat('a', 32))"
    )
    await until(lambda: all_is_well(api), seconds=60)


async def check_alert_of_a_hanging_process(evaluator: Running, api: httpx.AsyncClient) -> None:
    """Stop a process whose port stays open. It is down until it continues."""
    os.kill(evaluator.process.pid, signal.SIGSTOP)
    try:
        await until(lambda: fires(api, "PulseServiceDown pulse_evaluator_iot"), seconds=60)
    finally:
        os.kill(evaluator.process.pid, signal.SIGCONT)
    await until(lambda: all_is_well(api), seconds=60)


async def fires(api: httpx.AsyncClient, *names: str) -> bool:
    """Return whether exactly these alerts fire."""
    return await firing(api) == set(names)
