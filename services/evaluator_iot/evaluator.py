"""The evaluator: turns readings into alerts. Each pass is one call; the database decides and stores.

Two loops share the work, so that a tenant with a large backlog delays no other:

evaluate            passes over the tenants in turn, which share each pass by weight
evaluate_backlog    passes over one tenant at a time that had more work than its share or whose pass failed
"""

import asyncio
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import asyncpg

from services.evaluator_iot.backlog import Backlog
from services.evaluator_iot.evaluation_metrics import EVALUATE, EVALUATE_BACKLOG, EvaluationMetrics
from services.evaluator_iot.work_share import WorkShare
from services.shared import db, tracing
from services.shared.db import Pool
from services.shared.logging import tell
from services.shared.server import Process
from services.shared.settings import EvaluatorSettings
from services.shared.worker import Loop

log = logging.getLogger(__name__)

_MESSAGES = {
    "open": "alert opens",
    "close": "alert closes",
    "flapping": "alert flaps",
    "late": "late breach becomes a closed alert",
}
# A pass over many tenants is short, because a reading that arrives meanwhile waits for its end.
_SHARE_OF_ALL = 4
_MOST_TENANTS = 64


@dataclass(slots=True)
class Evaluator:
    """Evaluates new readings against the rules of their tenants."""

    readings: int
    pairs: int
    metrics: EvaluationMetrics
    slow_seconds: float = 1.0
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when a tenant leaves the backlog, because the other loop evaluates what arrived meanwhile."""
    wake_backlog: asyncio.Event = field(default_factory=asyncio.Event)
    backlog: Backlog = field(init=False)
    _share: WorkShare = field(init=False)
    _after: str = ""
    _rounds_without_work: int = 0

    def __post_init__(self) -> None:
        self.backlog = Backlog(slow_seconds=self.slow_seconds)
        self._share = WorkShare(self.slow_seconds / _SHARE_OF_ALL)

    async def step(self, pool: Pool) -> int:
        """Evaluate the next tenants and return the number of readings and transitions, 0 if no tenant has work."""
        self.metrics.pass_begins(EVALUATE, share=self._share.share)
        started = time.monotonic()
        without = self.backlog.tenant_ids()
        limits = [self._share.limit(most // _SHARE_OF_ALL) for most in (self.readings, self.pairs)]
        try:
            row = await pool.fetchrow(
                "select * from evaluator.evaluate($1, $2, null, $3, $4)", *limits, self._after, without
            )
        except (TimeoutError, asyncpg.PostgresError):
            self._share.pass_failed()
            await self._set_apart(pool, without)
            raise
        self._share.pass_ended(time.monotonic() - started)
        self._set_busy(row["busy_tenants"])
        goes_on = self._goes_on(row)
        if rows := self._record(EVALUATE, row):
            self._rounds_without_work = 0
        return rows or int(goes_on)

    async def step_backlog(self, pool: Pool) -> int:
        """Evaluate the next busy tenant and return the number of readings and transitions, 0 if there is none."""
        tenant = self.backlog.next()
        if tenant is None:
            return 0
        self.metrics.pass_begins(EVALUATE_BACKLOG, share=tenant.share.share)
        started = time.monotonic()
        try:
            row = await pool.fetchrow(
                "select * from evaluator.evaluate($1, $2, $3)",
                tenant.share.limit(self.readings),
                tenant.share.limit(self.pairs),
                [tenant.tenant_id],
            )
        except (TimeoutError, asyncpg.PostgresError) as error:
            self.backlog.pass_failed(tenant)
            log.warning(
                "pass over one tenant failed: %s",
                type(error).__name__,
                extra={"tenant_id": tenant.tenant_id, "failures": tenant.failures, "share": tenant.share.share},
            )
            raise
        finally:
            self._show_backlog()
        has_more = tenant.tenant_id in row["busy_tenants"]
        self.backlog.pass_ended(
            tenant, seconds=time.monotonic() - started, has_more=has_more, weight=row["weight"] or 1
        )
        self._show_backlog()
        if not has_more:
            self.wake.set()
        # Another evaluator may hold all remaining lanes. Then this loop waits.
        return self._record(EVALUATE_BACKLOG, row) or int(not has_more)

    def _goes_on(self, row: Mapping[str, Any]) -> bool:
        """Return true while tenants may have work left, that is until a round over all tenants finds none."""
        ends_round = row["saw_all"] or row["last_tenant"] <= self._after
        self._after = row["last_tenant"]
        self._rounds_without_work += ends_round
        if row["saw_all"] or self._rounds_without_work > 1:
            self._rounds_without_work = 0
            return False
        return True

    async def _set_apart(self, pool: Pool, without: list[str]) -> None:
        """Put the tenants of a failed pass into the backlog, which tries each alone: one may be the cause."""
        try:
            suspects = await pool.fetchval(
                "select evaluator.waiting_tenants($1, $2, $3)", self._after, without, _MOST_TENANTS
            )
        except (*db.UNAVAILABLE, asyncpg.PostgresError):
            return
        self._set_busy(suspects)

    def _set_busy(self, tenant_ids: list[str]) -> None:
        if tenant_ids:
            self.backlog.add(tenant_ids)
            self._show_backlog()
            self.wake_backlog.set()

    def _show_backlog(self) -> None:
        self.metrics.tenants_are(busy=len(self.backlog), failing=self.backlog.failing())

    def _record(self, operation: str, row: Mapping[str, Any]) -> int:
        self.metrics.pairs_evaluated(operation, row["pairs"])
        for transition in row["transitions"]:
            with tracing.use_trace_id(transition["trace_id"]):
                tell(
                    log,
                    logging.INFO,
                    _MESSAGES[transition["kind"]],
                    {name: transition[name] for name in ("tenant_id", "rule_id", "device_id", "value", "at")},
                )
        return int(row["readings"]) + len(row["transitions"])

    def fault(self) -> str | None:
        """Return why some tenants are not evaluated, or None."""
        failing = self.backlog.failing()
        return f"the last passes over {failing} tenant(s) failed; the log names them" if failing else None


def build(process: Process) -> list[Loop]:
    """Return the loops of the process."""
    settings = process.settings
    assert isinstance(settings, EvaluatorSettings)
    evaluator = Evaluator(
        readings=settings.evaluator_batch_readings,
        pairs=settings.evaluator_batch_pairs,
        slow_seconds=settings.evaluator_slow_pass_seconds,
        metrics=EvaluationMetrics(process.metrics),
    )
    process.faults.append(evaluator.fault)
    return [
        Loop(
            EVALUATE,
            evaluator.step,
            wake_on="pulse_evaluator",
            poll_seconds=settings.poll_seconds,
            wake=evaluator.wake,
        ),
        Loop(EVALUATE_BACKLOG, evaluator.step_backlog, poll_seconds=settings.poll_seconds, wake=evaluator.wake_backlog),
    ]
