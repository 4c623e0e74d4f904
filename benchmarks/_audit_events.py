"""Shared parts of the audit benchmarks: an event for Python and for COPY, a logger, the real sealer, the output."""

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg
from prometheus_client import CollectorRegistry

from benchmarks._bench import free_port
from services.shared.audit import AuditEvent, AuditLogger, new_event_id, open_audit_logger
from services.shared.sealed_log.key_file import KeyFile
from services.shared.settings import UiSettings

ROOT = Path(__file__).parents[1]
COLUMNS = (
    *("tenant_id", "timestamp", "event_id", "event_type", "category", "severity", "action", "message", "details"),
    *("source_service", "actor_type", "actor_id", "actor_name", "ip_address", "trace_id", "duration_ms"),
)
_DETAILS = {"method": "GET", "path": "/api/v1/alerts", "role": "viewer"}
_TRACE_ID = "0af7651916cd43dd8448eb211c80319c"

Rates = Mapping[str, Sequence[float]]


def make_event(event_type: str = "auth.login_success") -> AuditEvent:
    """Make an event as ui_iot does for each request."""
    return AuditEvent(
        event_type=event_type,
        message="caller let in",
        tenant_id="acme",
        details=_DETAILS,
        actor_type="user",
        actor_id="alice@example.com",
        actor_name="Alice",
        ip_address="198.51.100.7",
        trace_id=_TRACE_ID,
        duration_ms=0.2,
    )


def make_row() -> tuple[Any, ...]:
    """Make the same event as a row for COPY."""
    return (
        *("acme", datetime.now(UTC), new_event_id(), "auth.login_success", "auth", "info", "login_success"),
        *("caller let in", _DETAILS, "ui_iot", "user", "alice@example.com", "Alice", "198.51.100.7", _TRACE_ID, 0.2),
    )


@asynccontextmanager
async def audit_logger(
    url: str, registry: CollectorRegistry | None = None, **others: Any
) -> AsyncIterator[AuditLogger]:
    """Open an AuditLogger with a separate spool and without aggregation of floods, so that every row counts."""
    with tempfile.TemporaryDirectory(prefix="pulse-bench-spool-") as spool:
        settings = UiSettings(database_url=url, audit_spool_dir=Path(spool), audit_flood_rows_per_window=0, **others)
        async with open_audit_logger(settings, registry=registry or CollectorRegistry()) as logger:
            yield logger


KEY = KeyFile(Path(tempfile.gettempdir()) / f"pulse-bench-audit-{os.getpid()}.key", "pulse.bench/audit")
"""One for all sealers of a run, so that what the first signed verifies at the end."""


@contextmanager
def sealer(url: str) -> Iterator["subprocess.Popen[bytes]"]:
    """Run the real ops_worker without its health checks."""
    with tempfile.TemporaryDirectory(prefix="pulse-bench-audit-") as home:
        environment = {
            **os.environ,
            "PULSE_OPS_DATABASE_URL": url,
            "PULSE_PORT": str(free_port()),
            "PULSE_LOG_LEVEL": "ERROR",
            "PULSE_HEALTH_SECONDS": "86400",
            "PULSE_SERVICE_METRICS_SECONDS": "86400",
            "PULSE_AUDIT_KEY_FILE": str(KEY.path),
            "PULSE_AUDIT_LOG_NAME": str(KEY.name),
            "PULSE_AUDIT_ANCHOR_DIR": f"{home}/checkpoints",
        }
        process = subprocess.Popen([sys.executable, "-m", "services.ops_worker"], cwd=ROOT, env=environment)
        try:
            yield process
        finally:
            process.send_signal(signal.SIGCONT)
            process.terminate()
            process.wait(20)


async def count_sealed(conn: asyncpg.Connection) -> int:
    """Return the number of rows in blocks."""
    return int(await conn.fetchval("select coalesce(sum(row_count), 0) from audit.blocks"))


async def count_rows(conn: asyncpg.Connection, event_type: str) -> int:
    """Return the number of committed events of a type."""
    return int(await conn.fetchval("select count(*) from audit_log where event_type = $1", event_type))


async def until_sealed(conn: asyncpg.Connection, process: "subprocess.Popen[bytes]") -> None:
    """Wait until the sealer has nothing left. Fail if it has ended."""
    unsealed = "select exists (select from audit_log where xid >= pg_snapshot_xmax(audit._head_snapshot()))"
    while await conn.fetchval(unsealed):
        if process.poll() is not None:
            raise RuntimeError(f"the sealer ended with {process.returncode}")
        await asyncio.sleep(0.2)


def print_rates(title: str, rates: Rates, unit: str) -> None:
    """Print a line for each side, measured by turns, and the median of their ratios."""
    print(title)
    for name, values in rates.items():
        rounds = [round(value) for value in values]
        print(f"  {name:10} {sorted(values)[len(values) // 2]:>10,.0f} {unit}   of {rounds}")
    ratios = sorted(mine / theirs for mine, theirs in zip(rates["pulse"], rates["reference"], strict=True))
    print(f"  ratio      {ratios[len(ratios) // 2]:>10.2f} x the reference (median of {len(ratios)} rounds)")
