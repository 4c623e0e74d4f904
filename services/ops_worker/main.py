"""The timers of Pulse: sealing, escalation, attacks, health, metrics history, partitions and retention."""

import asyncio
import logging
import os
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial

import httpx

from services.ops_worker.acting import name_the_role
from services.ops_worker.health_monitor import HealthMonitor
from services.ops_worker.metrics_collector import MetricsCollector
from services.ops_worker.sealing.anchors import Anchor, Anchors, FileAnchor, HttpAnchor
from services.ops_worker.sealing.sealer import Sealer
from services.ops_worker.sealing.status import skip_on_key_fault
from services.ops_worker.workers.attack_detector import detect_attacks
from services.ops_worker.workers.audit_retention import AuditRetention
from services.ops_worker.workers.audit_verifier import AuditVerifier
from services.ops_worker.workers.escalation_worker import EscalationWorker
from services.ops_worker.workers.layer_check import check_layer
from services.ops_worker.workers.limit_defaults import LimitDefaults
from services.ops_worker.workers.partition_worker import PartitionWorker
from services.ops_worker.workers.retention_worker import RetentionWorker
from services.ops_worker.workers.session_guard import end_overdue_sessions
from services.shared.http_client import traced_client
from services.shared.sealed_log.kept import Survey, survey
from services.shared.sealed_log.key_file import KeyFault, KeyFile
from services.shared.server import Process
from services.shared.settings import OpsSettings
from services.shared.worker import Loop

log = logging.getLogger(__name__)

VERIFY_POLL_SECONDS = 5.0
"""Interval at which the verifier checks whether a verification is due or finished."""

SESSION_GUARD_SECONDS = 10.0
"""Interval between two searches for overdue transactions of readers."""


def loops(settings: OpsSettings, client: httpx.AsyncClient) -> Sequence[Loop]:
    """Return the table of timers. They run concurrently, so a failing or hanging timer delays no other."""
    urls = settings.status_urls
    escalation = EscalationWorker(batch=settings.escalation_batch)
    monitor = HealthMonitor(
        client=client,
        urls=urls,
        failures_to_alert=settings.health_failures_to_alert,
        round_seconds=settings.health_seconds,
        concurrency=settings.health_concurrency,
    )
    collector = MetricsCollector(
        client=client,
        urls=urls,
        round_seconds=settings.service_metrics_seconds,
        concurrency=settings.health_concurrency,
    )
    partitions = PartitionWorker(ahead_days=settings.partition_ahead_days, ahead_months=settings.partition_ahead_months)
    retention = RetentionWorker(
        telemetry_days=settings.telemetry_retention_days,
        alert_days=settings.alert_retention_days,
        service_metrics_days=settings.service_metrics_retention_days,
        batch=settings.retention_batch,
    )
    return [
        Loop("run_escalations", escalation.run, wake_on="pulse_ops", poll_seconds=settings.poll_seconds),
        Loop("detect_attacks", detect_attacks, poll_seconds=settings.attack_detection_seconds, is_timer=True),
        Loop("check_health", monitor.check, poll_seconds=settings.health_seconds, is_timer=True),
        Loop("collect_metrics", collector.collect, poll_seconds=settings.service_metrics_seconds, is_timer=True),
        Loop("ensure_partitions", partitions.make, poll_seconds=settings.partition_seconds, is_timer=True),
        Loop("prune", retention.prune, poll_seconds=settings.retention_seconds),
        Loop("set_limits", LimitDefaults(settings.limits()).store, poll_seconds=settings.poll_seconds),
        Loop("end_sessions", end_overdue_sessions, poll_seconds=SESSION_GUARD_SECONDS),
    ]


def make_sealer(settings: OpsSettings) -> Sealer:
    """Return the sealer, which knows the largest tree of all kept checkpoints: a smaller log is not sealed."""
    named = settings.audit_log_name if "audit_log_name" in settings.model_fields_set else None
    keys = KeyFile(settings.audit_key_file, named)
    sealer = Sealer(
        holder=f"{socket.gethostname()}:{os.getpid()}",
        keys=keys,
        rows_per_pass=settings.seal_batch,
        lease_seconds=settings.seal_lease_seconds,
    )
    if settings.audit_anchor_dir.is_dir() and any(settings.audit_anchor_dir.iterdir()):
        sealer.history.is_anchored = True
        try:
            found = survey(settings.audit_anchor_dir, keys.verifiers())
        except (KeyFault, OSError) as fault:
            found = Survey(None, [f"the kept checkpoints were not read: {fault}"])
        sealer.history.seen, sealer.status.anchor_faults = found
        for fault_text in found.faults:
            log.error("an anchor is not as it should be: %s", fault_text)
    return sealer


@asynccontextmanager
async def sealing_loops(
    process: Process, settings: OpsSettings, client: httpx.AsyncClient
) -> AsyncIterator[Sequence[Loop]]:
    """Sealing, handing out what was signed, letting old months go: apart, so that one that hangs delays no block."""
    file = FileAnchor(settings.audit_anchor_dir)
    anchors: list[Anchor] = [file]
    if settings.audit_anchor_url is not None:
        anchors.append(HttpAnchor(client, str(settings.audit_anchor_url)))
    sealer = await asyncio.to_thread(make_sealer, settings)
    sealer.status.show_in(process.metrics.registry)
    process.facts["audit_sealing"] = sealer.status.as_dict
    keeper = Anchors(anchors, process.metrics.registry)
    verifier = AuditVerifier(
        sealer.keys,
        file,
        recent_seconds=settings.audit_verify_seconds,
        all_seconds=settings.audit_verify_all_seconds,
        check_layer=partial(check_layer, str(settings.database_url)),
    )
    process.facts["audit_verification"] = verifier.as_dict
    retention = AuditRetention(settings.audit_retention_days, sealer.keys, keeper)
    yield [
        # Sealing what arrived meanwhile at once would make many small blocks.
        Loop("seal_audit", sealer.seal, poll_seconds=settings.seal_seconds, full_batch=settings.seal_batch),
        Loop("anchor_checkpoint", keeper.keep_newest, poll_seconds=settings.seal_seconds),
        Loop(
            "verify_audit",
            skip_on_key_fault(verifier.verify),
            poll_seconds=min(settings.audit_verify_seconds, VERIFY_POLL_SECONDS),
        ),
        Loop("drop_audit_months", skip_on_key_fault(retention.drop), poll_seconds=settings.retention_seconds),
    ]
    await verifier.stop()
    if process.pool is not None:
        await sealer.release(process.pool)


@asynccontextmanager
async def build(process: Process) -> AsyncIterator[Sequence[Loop]]:
    """Open the HTTP clients, and yield all loops of ops_worker."""
    assert isinstance(process.settings, OpsSettings)
    # Services have internal addresses, by default on this machine, so they are called without the proxy.
    direct = replace(process.settings.egress, proxy=None)
    async with (
        traced_client(trusted=True, timeout_seconds=process.settings.health_timeout_seconds, egress=direct) as client,
        traced_client(trusted=True, egress=process.settings.egress) as outgoing,
        sealing_loops(process, process.settings, outgoing) as sealing,
    ):
        timers = [*loops(process.settings, client), *sealing]
        yield [replace(timer, step=name_the_role(timer.step)) for timer in timers]
