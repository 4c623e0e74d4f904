"""Periodic verification of the sealed log: the last day often, everything once a day.

due? ─▶ read keys and kept checkpoints (a thread) ─▶ verify (a task, one connection, resting) ─▶ record, alert
"""

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from services.ops_worker.acting import act_as_system
from services.ops_worker.sealing.anchors import FileAnchor
from services.ops_worker.sealing.standing import SealingRefused, check_key
from services.ops_worker.workers.layer_check import LayerCheckFailed
from services.shared import tracing
from services.shared.db import Pool
from services.shared.sealed_log.block import Broken
from services.shared.sealed_log.kept import Kept, open_kept
from services.shared.sealed_log.key_file import KeyFile
from services.shared.sealed_log.note import BadNote, VerifierKey
from services.shared.sealed_log.verification import Report, Verification

log = logging.getLogger(__name__)

DAY = timedelta(days=1)
_SHOWN = 10
"""Number of differences of the layer in the message of an alert; the log has all."""


@dataclass(slots=True)
class AuditVerifier:
    """The verifier of a process. Only a process with the log's key verifies, because it has the kept checkpoints.

    recent_seconds, all_seconds: time between two verifications of the last day and of everything.
    """

    keys: KeyFile
    kept: FileAnchor
    recent_seconds: float
    all_seconds: float
    check_layer: "Callable[[], Awaitable[list[str]]] | None" = None
    """Returns the differences of the SQL layer; called as often as the last day is verified."""
    _results: dict[str, dict[str, Any]] = field(default_factory=dict, init=False)
    _task: "asyncio.Task[Report] | None" = field(default=None, init=False)
    _scope: str = field(default="", init=False)
    _layer_again_at: float = field(default=0.0, init=False)

    async def verify(self, pool: Pool) -> int:
        """Start a due verification or record an ended one; return the number of rows hashed. Never waits for one."""
        with tracing.use_trace_id(None):
            if self._task is None:
                await self._start(pool)
                return 0
            if not self._task.done():
                return 0
            task, self._task = self._task, None
            try:
                report = await task
            except LayerCheckFailed as failed:
                log.error("%s", failed)  # noqa: TRY400  # the message says everything
                self._layer_again_at = time.monotonic() + self.recent_seconds
                return 0
            await self._record(pool, self._scope, report)
            return report.hashed

    async def stop(self) -> None:
        """Cancel the running verification; another process starts it again."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await self._task

    def as_dict(self) -> dict[str, Any]:
        """Return the members for /health."""
        return {**self._results, **({"running": self._scope} if self._task is not None else {})}

    async def _start(self, pool: Pool) -> None:
        key = self.keys.find()
        head = await pool.fetchrow("select * from audit.read_head()")
        try:
            if key is None or head["tree_size"] == 0 or check_key(head, key, self.keys) is not None:
                return
        except SealingRefused:
            return
        rows = await pool.fetch("select * from audit.read_verifications()")
        self._results = {row["scope"]: _shown(row) for row in rows}
        ages = {row["scope"]: row["age_seconds"] for row in rows}
        self._scope = self._most_overdue(ages)
        if self._scope == "layer" and self.check_layer is not None:
            self._task = asyncio.create_task(self._verify_layer(self.check_layer), name="verify-layer")
        elif self._scope:
            since = datetime.now(UTC) - DAY if self._scope == "day" else None
            self._task = asyncio.create_task(self._verify(pool, since), name="verify-audit")

    def _most_overdue(self, ages: Mapping[str, float]) -> str:
        """Return the scope whose age is the largest multiple of its period, empty if none is due."""
        periods = {"all": self.all_seconds, "day": self.recent_seconds}
        if self.check_layer is not None and time.monotonic() >= self._layer_again_at:
            periods["layer"] = self.recent_seconds
        overdue = {scope: ages[scope] / period if scope in ages else math.inf for scope, period in periods.items()}
        scope = max(overdue, key=lambda one: overdue[one])
        return scope if overdue[scope] >= 1 else ""

    async def _verify(self, pool: Pool, since: datetime | None) -> Report:
        keys = self.keys.verifiers()
        try:
            kept = await asyncio.to_thread(self._read_kept, keys, newest_only=since is not None)
        except Broken as fault:
            report = Report()
            report.add(fault)
            return report
        return await Verification(pool, keys, kept, since, in_background=True).run()

    async def _verify_layer(self, check_layer: "Callable[[], Awaitable[list[str]]]") -> Report:
        report = Report()
        for difference in await check_layer():
            report.add(Broken(difference))
        return report

    def _read_kept(self, keys: list[VerifierKey], *, newest_only: bool) -> list[Kept]:
        """Return the newest checkpoint of each day, which covers all earlier ones."""
        kept = []
        for file, note in self.kept.newest_of_each_day():
            try:
                kept.append(open_kept(note, file, keys))
            except BadNote as fault:
                raise Broken(f"{file} holds a checkpoint that no known key signed: {fault}") from None
            if newest_only:
                break
        return sorted(kept)

    async def _record(self, pool: Pool, scope: str, report: Report) -> None:
        message = str(report.faults[0]) if report.faults else None
        if scope == "layer" and message is not None:
            message = "; ".join(map(str, report.faults[:_SHOWN]))
        async with act_as_system(pool) as connection:
            # A full verification includes the last day.
            for one in ("all", "day") if scope == "all" else (scope,):
                await connection.execute(
                    "select audit.record_verification($1, $2, $3, $4)", one, report.hashed, report.fault_count, message
                )
            if message is not None and scope != "layer":
                await connection.execute("select audit.report_broken_log($1)", f"verification: {message}")
        if scope == "layer":
            for fault in report.faults:
                log.error("the SQL layer is not as it was applied: %s", fault)
        elif message is None:
            log.info("audit trail verified", extra={"scope": scope, "rows": report.hashed, "blocks": report.blocks})
        else:
            log.error("the audit trail is not as it was sealed: %s", message, extra={"scope": scope})
        self._results = {
            row["scope"]: _shown(row) for row in await pool.fetch("select * from audit.read_verifications()")
        }


def _shown(row: Mapping[str, Any]) -> dict[str, Any]:
    shown = {"verified_at": row["verified_at"].isoformat(), "rows": row["row_count"], "faults": row["fault_count"]}
    return shown if row["message"] is None else {**shown, "message": row["message"]}
